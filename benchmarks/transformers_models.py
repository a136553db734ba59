"""The small models of transformers that `map_transformers.py` harvests: sizes and classes.

The first rows vary the classes; the later ones also the sizes: everything square, one layer,
twelve layers, encoders and decoders put together.
"""

from __future__ import annotations

BERT = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "vocab_size": 96, "max_position_embeddings": 48, "type_vocab_size": 2,
}  # fmt: skip
BART = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "vocab_size": 96,
    "max_position_embeddings": 48, "pad_token_id": 1, "decoder_start_token_id": 2,
}  # fmt: skip
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 96}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 96, "n_positions": 48}
LLAMA = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 64, "vocab_size": 96, "max_position_embeddings": 48,
}  # fmt: skip
VIT = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "image_size": 16, "patch_size": 4,
}  # fmt: skip
RES = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [2, 2], "num_labels": 10}
W2V = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "vocab_size": 96, "conv_dim": [32, 32, 32], "conv_kernel": [10, 3, 2], "conv_stride": [5, 2, 2],
    "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4,
    "feat_extract_norm": "layer", "do_stable_layer_norm": True, "codevector_dim": 16,
    "proj_codevector_dim": 16, "num_codevectors_per_group": 8,
}  # fmt: skip
WHISPER = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "vocab_size": 96,
    "num_mel_bins": 20, "max_source_positions": 24, "max_target_positions": 16, "pad_token_id": 1,
    "decoder_start_token_id": 2, "classifier_proj_size": 16,
}  # fmt: skip
CLIP_TEXT = {**BERT, "projection_dim": 24, "eos_token_id": 2}
CLIP_VISION = {**VIT, "projection_dim": 24}
CLIP = {"projection_dim": 24, "text_config": CLIP_TEXT, "vision_config": CLIP_VISION}
DISTIL = {
    "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "vocab_size": 96,
    "max_position_embeddings": 48,
}  # fmt: skip
OPT = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64,
    "vocab_size": 96, "max_position_embeddings": 48, "word_embed_proj_dim": 32,
}  # fmt: skip
XGLM = {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 64, "vocab_size": 96}
NEO = {
    "hidden_size": 32, "num_layers": 2, "num_heads": 4, "vocab_size": 96,
    "max_position_embeddings": 48, "attention_types": [[["global", "local"], 1]],
}  # fmt: skip

#: nothing differs in size: hidden, intermediate, vocabulary, positions and types
SQUARE = {
    **BERT, "intermediate_size": 32, "vocab_size": 32, "max_position_embeddings": 32,
    "type_vocab_size": 32,
}  # fmt: skip
BART_SQUARE = {
    **BART, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": 32,
    "max_position_embeddings": 32,
}  # fmt: skip
DECODES = {"is_decoder": True, "add_cross_attention": True}


def bert_to_gpt2():
    """A BERT encoder with a GPT-2 decoder that attends to it."""
    from transformers import BertConfig, EncoderDecoderConfig, GPT2Config

    return EncoderDecoderConfig.from_encoder_decoder_configs(
        BertConfig(**BERT), GPT2Config(**GPT, **DECODES)
    )


def roberta_to_roberta():
    """Two RoBERTas of different width, with a projection between them."""
    from transformers import EncoderDecoderConfig, RobertaConfig

    narrow = {**BERT, "hidden_size": 16, "num_attention_heads": 2}
    return EncoderDecoderConfig.from_encoder_decoder_configs(
        RobertaConfig(**narrow), RobertaConfig(**BERT, **DECODES)
    )


def vit_to_gpt2():
    """An image encoder with a GPT-2 decoder."""
    from transformers import GPT2Config, VisionEncoderDecoderConfig, ViTConfig

    return VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        ViTConfig(**VIT), GPT2Config(**GPT, **DECODES)
    )


def vit_and_bert():
    """An image and a text tower, neither of them CLIP's own."""
    from transformers import BertConfig, VisionTextDualEncoderConfig, ViTConfig

    return VisionTextDualEncoderConfig.from_vision_text_configs(
        ViTConfig(**VIT), BertConfig(**BERT), projection_dim=24
    )


#: model name, class without the Flax prefix, keyword arguments of its configuration or what
#: makes it
MODELS = (
    ("albert-mlm", "AlbertForMaskedLM", {**BERT, "embedding_size": 16}),
    ("albert-pre", "AlbertForPreTraining", {**BERT, "embedding_size": 16, "num_hidden_groups": 2}),
    ("bart", "BartModel", BART),
    ("bart-lm", "BartForConditionalGeneration", BART),
    ("bart-causal", "BartForCausalLM", BART),
    ("bart-cls", "BartForSequenceClassification", BART),
    ("beit", "BeitModel", VIT),
    ("beit-rel", "BeitForImageClassification", {**VIT, "use_relative_position_bias": True}),
    ("beit-mim", "BeitForMaskedImageModeling", {**VIT, "use_mask_token": True, "vocab_size": 96}),
    ("bert", "BertModel", BERT),
    ("bert-12", "BertModel", {**BERT, "num_hidden_layers": 12}),
    ("bert-mlm", "BertForMaskedLM", BERT),
    ("bert-pre", "BertForPreTraining", BERT),
    ("bert-square", "BertForSequenceClassification", {**BERT, "intermediate_size": 32}),
    ("bigbird-mlm", "BigBirdForMaskedLM", {**BERT, "attention_type": "original_full"}),
    ("blenderbot", "BlenderbotForConditionalGeneration", BART),
    ("blenderbot-small", "BlenderbotSmallForConditionalGeneration", BART),
    ("bloom", "BloomForCausalLM", {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 96}),
    ("clip", "CLIPModel", CLIP),
    ("clip-text", "CLIPTextModelWithProjection", CLIP_TEXT),
    ("clip-vision", "CLIPVisionModel", CLIP_VISION),
    ("dinov2", "Dinov2Model", VIT),
    ("dinov2-cls", "Dinov2ForImageClassification", VIT),
    ("distilbert", "DistilBertForMaskedLM", DISTIL),
    ("distilbert-cls", "DistilBertForSequenceClassification", DISTIL),
    ("electra-pre", "ElectraForPreTraining", {**BERT, "embedding_size": 16}),
    ("electra-mlm", "ElectraForMaskedLM", {**BERT, "embedding_size": 16}),
    ("gemma", "GemmaForCausalLM", {**LLAMA, "head_dim": 8}),
    ("gpt2", "GPT2Model", GPT),
    ("gpt2-square", "GPT2LMHeadModel", {**GPT, "n_inner": 32}),
    ("gpt-neo", "GPTNeoForCausalLM", NEO),
    ("gptj", "GPTJForCausalLM", {**GPT, "rotary_dim": 4, "tie_word_embeddings": False}),
    ("llama", "LlamaForCausalLM", LLAMA),
    ("llama-base", "LlamaModel", {**LLAMA, "num_key_value_heads": 4}),
    ("llama-tied", "LlamaForCausalLM", {**LLAMA, "tie_word_embeddings": True}),
    ("longt5", "LongT5ForConditionalGeneration", {**T5, "local_radius": 3}),
    ("longt5-tglobal", "LongT5Model", {**T5, "encoder_attention_type": "transient-global"}),
    ("marian", "MarianMTModel", BART),
    ("mbart", "MBartForConditionalGeneration", BART),
    ("mbart-qa", "MBartForQuestionAnswering", BART),
    ("mistral", "MistralForCausalLM", LLAMA),
    ("mt5", "MT5ForConditionalGeneration", {**T5, "tie_word_embeddings": False}),
    ("opt", "OPTForCausalLM", OPT),
    ("opt-square", "OPTModel", {**OPT, "ffn_dim": 32}),
    ("pegasus", "PegasusForConditionalGeneration", BART),
    ("regnet", "RegNetForImageClassification", {**RES, "groups_width": 4}),
    ("resnet", "ResNetForImageClassification", {**RES, "layer_type": "bottleneck"}),
    ("resnet-basic", "ResNetModel", {**RES, "layer_type": "basic"}),
    ("roberta-mlm", "RobertaForMaskedLM", BERT),
    ("roberta-cls", "RobertaForSequenceClassification", BERT),
    ("roberta-preln", "RobertaPreLayerNormForMaskedLM", BERT),
    ("roformer", "RoFormerForMaskedLM", {**BERT, "embedding_size": 32}),
    ("roformer-cls", "RoFormerForSequenceClassification", BERT),
    ("t5", "T5ForConditionalGeneration", T5),
    ("t5-gated", "T5ForConditionalGeneration", {**T5, "feed_forward_proj": "gated-gelu"}),
    ("t5-encoder", "T5EncoderModel", T5),
    ("vit", "ViTModel", VIT),
    ("vit-cls", "ViTForImageClassification", VIT),
    ("wav2vec2", "Wav2Vec2Model", W2V),
    ("wav2vec2-pre", "Wav2Vec2ForPreTraining", W2V),
    ("wav2vec2-ctc", "Wav2Vec2ForCTC", {**W2V, "add_adapter": True}),
    ("whisper", "WhisperForConditionalGeneration", WHISPER),
    ("whisper-cls", "WhisperForAudioClassification", WHISPER),
    ("xglm", "XGLMForCausalLM", XGLM),
    ("xlm-roberta", "XLMRobertaForTokenClassification", BERT),
    ("albert-square", "AlbertForPreTraining", {**SQUARE, "embedding_size": 32}),
    ("albert-tokens", "AlbertForTokenClassification", {**BERT, "embedding_size": 16}),
    ("bart-square", "BartForQuestionAnswering", BART_SQUARE),
    ("bert-causal", "BertLMHeadModel", {**BERT, "is_decoder": True}),
    ("bert-choice", "BertForMultipleChoice", BERT),
    ("bert-next", "BertForNextSentencePrediction", SQUARE),
    ("bert-qa", "BertForQuestionAnswering", {**BERT, "num_hidden_layers": 1}),
    ("bert-to-gpt2", "EncoderDecoderModel", bert_to_gpt2),
    ("bigbird-qa", "BigBirdForQuestionAnswering", {**BERT, "attention_type": "original_full"}),
    ("blenderbot-square", "BlenderbotModel", BART_SQUARE),
    (
        "clip-square",
        "CLIPModel",
        {
            "projection_dim": 32,
            "text_config": {**SQUARE, "projection_dim": 32},
            "vision_config": {**VIT, "intermediate_size": 32},
        },
    ),
    ("distilbert-qa", "DistilBertForQuestionAnswering", DISTIL),
    (
        "distilbert-square",
        "DistilBertForMaskedLM",
        {
            **DISTIL,
            "hidden_dim": 32,
            "vocab_size": 32,
            "max_position_embeddings": 32,
        },
    ),
    ("electra-choice", "ElectraForMultipleChoice", {**BERT, "embedding_size": 16}),
    ("electra-tokens", "ElectraForTokenClassification", {**SQUARE, "embedding_size": 32}),
    ("gpt-neo-square", "GPTNeoModel", {**NEO, "intermediate_size": 32, "vocab_size": 32}),
    ("gpt2-12", "GPT2Model", {**GPT, "n_layer": 12}),
    (
        "llama-square",
        "LlamaForCausalLM",
        {
            **LLAMA,
            "num_key_value_heads": 4,
            "intermediate_size": 32,
            "vocab_size": 32,
        },
    ),
    ("marian-square", "MarianModel", BART_SQUARE),
    ("mbart-cls", "MBartForSequenceClassification", BART),
    ("mt5-encoder", "MT5EncoderModel", T5),
    ("opt-projected", "OPTForCausalLM", {**OPT, "word_embed_proj_dim": 16}),
    ("pegasus-square", "PegasusModel", BART_SQUARE),
    ("resnet-deep", "ResNetModel", {**RES, "hidden_sizes": [8, 8], "depths": [12, 3]}),
    ("roberta-choice", "RobertaForMultipleChoice", BERT),
    ("roberta-preln-qa", "RobertaPreLayerNormForQuestionAnswering", SQUARE),
    ("roberta-to-roberta", "EncoderDecoderModel", roberta_to_roberta),
    ("roformer-tokens", "RoFormerForTokenClassification", BERT),
    ("t5-square", "T5Model", {**T5, "d_ff": 32, "vocab_size": 32}),
    ("vit-12", "ViTModel", {**VIT, "num_hidden_layers": 12}),
    ("vit-and-bert", "VisionTextDualEncoderModel", vit_and_bert),
    ("vit-to-gpt2", "VisionEncoderDecoderModel", vit_to_gpt2),
    ("wav2vec2-bias", "Wav2Vec2ForCTC", {**W2V, "conv_bias": True}),
    (
        "whisper-square",
        "WhisperModel",
        {
            **WHISPER,
            "encoder_ffn_dim": 32,
            "decoder_ffn_dim": 32,
            "vocab_size": 32,
            "num_mel_bins": 32,
            "max_source_positions": 32,
            "max_target_positions": 32,
        },
    ),
    ("xlm-roberta-choice", "XLMRobertaForMultipleChoice", SQUARE),
)

#: classes that the two libraries call differently
FLAX_NAMES = {"BertLMHeadModel": "BertForCausalLM"}
#: keys that transformers' own converter fails to rename (it leaves such leaves at random)
RENAMED = {"resnet-basic": (r"\.layer\.(\d+)\.", r".layer.layer_\1.")}
