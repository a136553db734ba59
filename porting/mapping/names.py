"""What a name says: its words, and the role that its layer plays.

A path is cut into components (`self_attn`, `layer_3`, `LayerNorm`), a component into words,
and words that mean the same are written the same. All knowledge about naming is in the
tables of this file; the rest of the package sees words and roles.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from functools import cache

#: words that mean the same; "" drops the word
SYNONYMS = {
    "query": "q", "key": "k", "value": "v", "attention": "attn", "attentions": "attn",
    "selfattention": "attn", "multiheadattention": "attn", "mha": "attn",
    "crossattention": "cross", "encdecattention": "cross", "xattn": "cross",
    "embedding": "emb", "embeddings": "emb", "embed": "emb", "embedder": "emb", "embs": "emb",
    "wte": "token", "tokens": "token", "tok": "token", "word": "token", "vocab": "token",
    "wpe": "pos", "position": "pos", "positions": "pos", "positional": "pos",
    "segment": "type", "layernorm": "norm", "ln": "norm", "rmsnorm": "norm", "norms": "norm",
    "normalization": "norm", "batchnorm": "norm", "bn": "norm", "groupnorm": "norm",
    "gn": "norm", "convolution": "conv", "projection": "proj", "project": "proj",
    "linear": "lin", "dense": "lin", "lin": "lin", "fc": "lin", "ffn": "mlp", "ff": "mlp",
    "feedforward": "mlp", "ffw": "mlp", "enc": "encoder", "dec": "decoder",
    "layers": "layer", "blocks": "layer", "block": "layer", "h": "layer", "stages": "stage",
    "patches": "patch", "cls": "cls", "classifier": "head", "score": "head", "logits": "head",
    "output": "out", "outputs": "out", "f": "final", "last": "final", "mean": "mean",
    "module": "", "model": "", "params": "", "base": "", "proj": "proj", "weight": "",
    "tokenizer": "token", "shared": "shared", "vision": "vision", "visual": "vision",
    "downsample": "shortcut", "downsampling": "shortcut", "skip": "shortcut", "residual": "shortcut", "upsampler": "up",
}  # fmt: skip

#: wrappers that one side may have and the other not
WRAPPERS = frozenset(
    {"params", "batch_stats", "module", "model", "base_model", "modules", "_orig_mod"}
)

#: role -> whole components that name it, then the pattern of the end of the path
ROLES: tuple[tuple[str, str], ...] = (
    ("deconv", r"(deconv|conv_?trans[a-z]*|transposed?|up_?conv)[a-z_\d]*(/\d+)?$"),
    ("qkv", r"(^|/)(qkv(_proj|_einsum)?|in_proj|c_attn|query_key_value|wqkv|w_pack|att_proj)$"),
    ("kv", r"(^|/)(kv(_proj|_einsum)?|to_kv|key_value|wkv)$"),
    ("gate_up", r"(^|/)(gate_up(_proj)?|gating_einsum|gate_and_up|w13)$"),
    ("q", r"(^|/)((to_)?(w?q|query)(_?(proj|lin|layer|einsum|dense|kernel|attn|b_proj))?)$"),
    ("k", r"(^|/)((to_)?(w?k|key)(_?(proj|lin|layer|einsum|dense|kernel))?)$"),
    ("v", r"(^|/)((to_)?(w?v|value)(_?(proj|lin|layer|einsum|dense|kernel))?)$"),
    ("gate", r"(^|/)(gate(_proj|_lin)?|wi_0|linear_gate|ffn_gate)$"),
    ("up", r"(mlp|feed_forward|ffn|ff|swiglu|ffw)/w3$"),
    ("gate", r"(mlp|feed_forward|ffn|ff|swiglu|ffw)/w1$"),
    ("down", r"(mlp|feed_forward|ffn|ff|swiglu|ffw)/w2$"),
    ("up", r"(^|/)(up(_proj)?|wi(_1)?|c_fc|fc_?1|fc_?in|lin(ear)?_?(1|in)|dense_h_to_4h|"
           r"intermediate(_dense|/dense)?|ffn|ffn_up|up_lin|mlp/0|ff/0|pwconv1)$"),
    ("down", r"(^|/)(down(_proj)?|fc_?2|fc_?out|lin(ear)?_?(2|out)|dense_4h_to_h|ffn_output|ffn_down|"
             r"output_dense|down_lin|pwconv2)$"),
    ("o", r"(attn|attention|att|self|cross)[a-z_]*(/\d+)?(/output)?/"
          r"(o|out|wo|dense|c_proj|proj|output|to_out|linear|out_lin|attn_vec_einsum|post)$"),
    ("o", r"(^|/)(o_proj|out_proj|to_out|to_out/0|out_lin|attn_vec_einsum|attn_out|wo_attn)$"),
    ("down", r"(mlp|feed_forward|ffn|ff|densereludense|dense_relu_dense|ffw)[a-z_]*/"
             r"(c_proj|proj|wo|output|out|linear|dense|2)$"),
    ("down", r"(^|/)(\d+|layers?)/output/dense$"),
    ("norm1", r"block/\d+/layer/0/layer_norm$"),
    ("norm2", r"encoder/block/\d+/layer/1/layer_norm$|block/\d+/layer/2/layer_norm$"),
    ("norm3", r"decoder/block/\d+/layer/1/layer_norm$"),
    ("norm_short", r"(downsample|shortcut)/(1|bn|norm[a-z]*)$|(^|/)norm_proj$"),
    ("norm1", r"(\d+|layers|blocks|layer)/(bn_?1|input_layer_?norm|ln_?1|layer_?norm_before|norm_?1|self_attn_layer_norm|"
              r"attention_norm|layer_norm_?1|pre_(self_)?attention_(layer_?)?norm|sa_layer_norm|attn_norm|"
              r"input_norm|attn_ln|attention/output/layer_?norm|attention/layer_?norm|pre_attn_norm|"
              r"attention_layer_norm|self_attention_layer_norm)$"),
    ("norm2", r"(\d+|layers|blocks|layer)/(bn_?2|post_attention_layer_?norm|ln_?2|layer_?norm_after|norm_?2|final_layer_norm|"
              r"ffn_norm|layer_norm_?2|output/layer_?norm|output_layer_norm|pre_ffw_norm|"
              r"mlp_norm|mlp_ln|pre_mlp_layer_?norm|full_layer_layer_norm|ffn_layer_norm|feed_forward_norm|pre_mlp_norm|"
              r"post_attention_norm|post_attn_norm)$"),
    ("norm3", r"(\d+|layers|blocks|layer)/(bn_?3|encoder_attn_layer_norm|norm_?3|ln_?3|(pre_)?cross_att(n|ention)_layer_?norm|cross_norm|"
              r"ln_cross_attn|cross_attn_norm|cross_attn_ln)$"),
    ("cls", r"(^|/)cls(_?token|_embedding|_pos)?$|class_(token|embedding)$"),
    ("layer_scale", r"(^|/)(layer_?scale(_parameter|_?\d)?(/(lambda\d?|gamma|scale))?|gamma(_?\d)?|"
                    r"lambda_?\d|ls_?\d(/(gamma|scale))?)$"),
    ("tok", r"(^|/)(word|token|tok|wte|vocab)[a-z]*_?(emb[a-z]*|tokens)?$"),
    ("tok", r"(^|/)(embed_tokens|embed_in|input_embeddings?|shared|embed|embedder|embedding|embeddings|"
            r"embeder)$"),
    ("pos", r"(^|/)(pos|position|positional|wpe|embed_positions)[a-z_]*$|pos[a-z]*_emb[a-z]*$"),
    ("type", r"(token_type|segment)[a-z_]*$"),
    ("patch", r"(^|/)(patch|patches)[a-z_]*(/(proj|projection|conv|dense))?$|"
              r"(^|/)(conv_proj|patch_conv)$"),
    ("head", r"(^|/)(lm_head|head|classifier|score|logits|proj_out|embed_out|output_projection|"
             r"unembed|qa_outputs|lm_head/decoder|predictions/decoder|vocab_projector)$"),
    ("norm_out", r"(^|/)(final_layer_?norm|ln_?f|final_norm|ln_post|post_layer_?norm|norm_f|"
                 r"encoder_norm|decoder_norm|norm_out|ln_final)$"),
)  # fmt: skip

#: roles of which a layer plays only one
EXCLUSIVE = (
    {"q", "k", "v", "o", "qkv", "kv", "gate", "up", "down", "gate_up", "patch", "head"},
    {"norm1", "norm2", "norm3", "norm_out", "norm_short"},
    {"tok", "pos", "type", "cls", "head", "patch"},
)
#: words that exclude each other wherever they stand, and those that do so within a layer
_OPPOSITES = (
    {"encoder", "decoder"}, {"text", "vision"}, {"forward", "backward"}, {"student", "teacher"},
)  # fmt: skip
_OPPOSITES_WITHIN = ({"before", "after"}, {"pre", "post"}, {"attn", "mlp"}, {"q", "k", "v"})
#: words that say what kind of thing a layer is, and not which
GENERIC = frozenset(
    [
        "lin",
        "norm",
        "conv",
        "proj",
        "out",
        "layer",
        "emb",
        "mlp",
        "attn",
        "self",
        "block",
        "w",
        "b",
        "stage",
        "group",
        "net",
        "features",
        "main",
        "encoder",
        "body",
        "backbone",
        "transformer",
        "embeddings",
    ]
)
_AUTO = re.compile(r"([A-Z][A-Za-z0-9]*?)_(\d+)$")
_LISTED = re.compile(r"(\w*?(?:layer|block|stage|group|unit|h|to_out|net|[a-rt-z]s))_(\d+)$")

_INSIDE = re.compile(r"(\w*?(?:layer|block|stage|h|[a-rt-z]s))_(\d+)_(?=[A-Za-z])(\w+)$")


def components(path: str) -> tuple[str, ...]:
    """The components of a source key or a target path, numbers standing alone.

    >>> components("bert.encoder.layer.3.attention.self.query")
    ('bert', 'encoder', 'layer', '3', 'attention', 'self', 'query')
    >>> components("params/encoder/layer_3/Dense_0")
    ('params', 'encoder', 'layer', '3', 'Dense', '0')
    """
    parts: list[str] = []
    for part in path.replace("/", ".").split("."):
        rest = part
        while inside := _INSIDE.match(rest):
            parts += [inside[1], inside[2]]
            rest = inside[3]
        counted = _AUTO.match(rest) or _LISTED.match(rest)
        parts += [counted[1], counted[2]] if counted else [rest]
    return tuple(parts)


def counters(paths: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """Modules that haiku counts (`linear`, `linear_1`), by the names that Flax counts with.

    >>> counters([("mlp", "linear", "w"), ("mlp", "linear_1", "w"), ("mlp", "out", "w")])
    {('mlp', 'linear'): 'Linear_0', ('mlp', 'linear_1'): 'Linear_1'}
    """
    inside: dict[tuple[str, ...], dict[str, None]] = {}
    for path in paths:
        for depth, name in enumerate(path[:-1]):
            inside.setdefault(path[:depth], {})[name] = None
    made = {}
    for parent, names in inside.items():
        for name in names:
            if f"{name}_1" not in names or f"{name}_0" in names or not set(words(name)) <= GENERIC:
                continue
            stem = "".join(part.capitalize() for part in name.split("_"))
            made[*parent, name] = f"{stem}_0"
            for number in itertools.takewhile(lambda n: f"{name}_{n}" in names, itertools.count(1)):  # noqa: B023
                made[*parent, f"{name}_{number}"] = f"{stem}_{number}"
    return made


@cache
def words(component: str) -> tuple[str, ...]:
    """The words of one component, in their common spelling.

    >>> words("self_attn_layer_norm"), words("LayerNorm"), words("q_proj"), words("fc1")
    (('self', 'attn', 'norm'), ('norm',), ('q', 'proj'), ('lin', '1'))
    """
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", component)
    text = re.sub(r"(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])", "_", text).lower()
    text = text.replace("layer_norm", "layernorm").replace("batch_norm", "batchnorm")
    text = text.replace("rms_norm", "rmsnorm").replace("group_norm", "groupnorm")
    text = text.replace("feed_forward", "feedforward").replace("enc_dec_attention", "cross")
    text = text.replace("encoder_attn", "cross_attn").replace("cross_attention", "cross_attn")
    return tuple(w for part in text.split("_") if (w := SYNONYMS.get(part, part)))


@cache
def role(path: tuple[str, ...]) -> str:
    """The role of the layer at `path` (its components), "" where the name does not tell.

    >>> role(("encoder", "layer", "0", "attention", "output", "dense"))
    'o'
    >>> role(("layers", "0", "linear1")), role(("Dense", "0"))
    ('up', '')
    """
    text = "/".join(path)
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text).lower()
    return next((name for name, pattern in ROLES if re.search(pattern, text)), "")


def clash(a: str, b: str) -> bool:
    """Whether two roles exclude each other.

    >>> clash("q", "k"), clash("q", "norm1"), clash("q", "")
    (True, False, False)
    """
    return bool(a and b and a != b) and any(a in group and b in group for group in EXCLUSIVE)


def opposite(a: frozenset[str], b: frozenset[str], same_role: bool = False) -> bool:
    """Whether the words of two paths contradict each other (encoder against decoder).

    Two names of one role may differ within a layer: `ffn_norm`, `post_attention_layernorm`.

    >>> opposite(frozenset({"encoder", "q"}), frozenset({"decoder", "q"}))
    True
    """
    groups = _OPPOSITES if same_role else _OPPOSITES + _OPPOSITES_WITHIN
    return any((group & a) and (group & b) and not (group & a & b) for group in groups)


@cache
def directed(path: tuple[str, ...]) -> dict[tuple[str, ...], tuple[str, ...]]:
    """The long components of a path: their words sorted -> their words as they stand.

    >>> directed(("layers", "0", "attn_image_to_token"))
    {('attn', 'image', 'to', 'token'): ('attn', 'image', 'to', 'token')}
    """
    long = [spelled for c in path if len(spelled := words(c)) > 3]
    return {tuple(sorted(spelled)): spelled for spelled in long}


def reversed_in(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    """Whether two paths have a component of the same words in another order.

    >>> reversed_in(("cross_attn_image_to_token",), ("cross_attn_token_to_image",))
    True
    """
    left, right = directed(a), directed(b)
    return any(left[key] != right[key] for key in left.keys() & right.keys())


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key that puts `layer.10` after `layer.9`.

    >>> sorted(["layer.10", "layer.9"], key=natural)
    ['layer.9', 'layer.10']
    """
    return tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part)
        for part in re.split(r"(\d+)", text)
        if part
    )
