"""The names and shapes of small random transformers models, with the mapping that is true.

transformers 4.57 is the last release with Flax classes, and it converts PyTorch weights
itself. Every tensor is random, so a converted leaf names its source by its values: that is
the truth that `infer_mapping` is measured against. Only names, shapes and the truth are
written, as one JSON file a model:

    python -m venv venv && venv/bin/pip install torch==2.13.0 transformers==4.57.6 \
        flax==0.12.8 jax==0.10.2 && venv/bin/python benchmarks/map_transformers.py OUT

`benchmarks/map_score.py OUT` then counts right, unsure and wrong leaves; it needs only
this package.
"""

from __future__ import annotations

import itertools
import json
import sys
import warnings
from pathlib import Path

import numpy as np

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

#: model name, class without the Flax prefix, keyword arguments of its configuration
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
)


def randomise(model, seed: int) -> dict[str, np.ndarray]:
    """Give every floating tensor its own random values; the state_dict, in its own order."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        if tensor.is_floating_point():
            tensor.data = torch.rand(tensor.shape, generator=generator) + 0.1
    model.tie_weights()
    return {key: tensor.detach().numpy() for key, tensor in model.state_dict().items()}


def origin(leaf: np.ndarray, source: dict[str, np.ndarray]) -> dict | None:
    """Which source keys hold this leaf, and which permutation of their axes makes it."""
    for order in itertools.permutations(range(leaf.ndim)):
        keys = [
            key
            for key, array in source.items()
            if array.ndim == leaf.ndim
            and array.transpose(order).shape == leaf.shape
            and np.array_equal(array.transpose(order), leaf)
        ]
        if keys:
            return {"from": keys, "order": list(order)}
    return None


def harvest(name: str, arch: str, settings: dict, seed: int) -> dict:
    """Names, shapes and truth of one model."""
    import jax.numpy as jnp
    import transformers
    from flax.traverse_util import flatten_dict
    from transformers.modeling_flax_pytorch_utils import convert_pytorch_state_dict_to_flax

    torch_class = getattr(transformers, arch)
    flax_class = getattr(transformers, f"Flax{arch}")
    config = torch_class.config_class(**settings)
    state = randomise(torch_class(config).eval(), seed)
    flax_model = flax_class(config, seed=0, dtype=jnp.float32)
    shapes = flatten_dict(flax_model.params, sep="/")
    given = {k: v for k, v in state.items() if v.dtype.kind == "f" or v.ndim == 0}
    import torch

    made = convert_pytorch_state_dict_to_flax(
        {k: torch.from_numpy(np.array(v)) for k, v in given.items()}, flax_model
    )
    made = {k: np.asarray(v) for k, v in flatten_dict(made, sep="/").items()}
    prefix = "" if any(k.startswith("params/") for k in shapes) else "params/"
    floats = {k: v for k, v in state.items() if v.dtype.kind == "f"}
    truth = {prefix + k: origin(made[k], floats) for k in shapes if k in made}
    return {
        "name": name,
        "source": {k: [list(v.shape), str(v.dtype)] for k, v in state.items()},
        "target": {prefix + k: [list(v.shape), str(v.dtype)] for k, v in shapes.items()},
        "map": {k: v for k, v in truth.items() if v},
    }


def spell_clip_as_before() -> None:
    """transformers 4.57 calls `jnp.clip(x, a_min=, a_max=)`, which jax has renamed since."""
    import jax.numpy as jnp

    clip = jnp.clip
    jnp.clip = lambda x, a_min=None, a_max=None, **rest: clip(x, a_min, a_max, **rest)


def main(folder: str, *only: str) -> None:
    warnings.simplefilter("ignore")
    spell_clip_as_before()
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    for seed, (name, arch, settings) in enumerate(MODELS):
        if (only and name not in only) or (out / f"{name}.json").exists():
            continue
        try:
            table = harvest(name, arch, settings, seed)
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {str(error)[:200]}", flush=True)
            continue
        (out / f"{name}.json").write_text(json.dumps(table))
        missing = len(table["target"]) - len(table["map"])
        print(f"{name}: {len(table['target'])} leaves, {missing} without a truth", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
