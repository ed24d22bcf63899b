"""Text models of Hugging Face transformers, tiny, with random weights."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from zoo_models.model import BATCH_LENGTH, Axes, ZooCall, ZooModel, call, ids, mask


def from_config(model: str, config: str, **settings: Any) -> nn.Module:
    import transformers

    return getattr(transformers, model)(getattr(transformers, config)(**settings))


def hf(
    family: str,
    model: str,
    config: str,
    how: Callable[..., ZooCall],
    dynamic: Axes,
    *,
    id: str = "",
    sizes: tuple[int, ...] = (2, 8),
    other_sizes: tuple[int, ...] = (3, 11),
    **settings: Any,
) -> ZooModel:
    build = partial(from_config, model, config, **settings)
    name = f"transformers/{id or model}"
    return ZooModel(name, family, build, how, dynamic, sizes, other_sizes, "transformers")


BERT_LIKE = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
             "intermediate_size": 64, "max_position_embeddings": 64}  # fmt: skip
LLAMA_LIKE = {**BERT_LIKE, "num_key_value_heads": 2, "pad_token_id": 0}
GPT_LIKE = {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
TEXT: Axes = {"input_ids": BATCH_LENGTH, "attention_mask": BATCH_LENGTH}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


def text(batch: int, length: int) -> ZooCall:
    return call(input_ids=ids(batch, length), attention_mask=mask(batch, length))


def no_cache(batch: int, length: int) -> ZooCall:
    return call(input_ids=ids(batch, length), attention_mask=mask(batch, length), use_cache=False)


def positional(batch: int, length: int) -> ZooCall:
    return call(ids(batch, length), mask(batch, length))


def only_ids(batch: int, length: int) -> ZooCall:
    return call(input_ids=ids(batch, length))


def only_ids_no_cache(batch: int, length: int) -> ZooCall:
    return call(input_ids=ids(batch, length), use_cache=False)


def ended(batch: int, length: int) -> ZooCall:
    """Each row ends in the token that its class is read at."""
    import torch

    tokens = torch.cat((ids(batch, length - 1), torch.full((batch, 1), 98)), 1)
    return call(input_ids=tokens, use_cache=False)


def with_cache(batch: int, past: int, *, heads: int, width: int, layers: int = 2) -> ZooCall:
    """One more token after `past` ones, whose keys and values are in a cache."""
    import torch
    from transformers import DynamicCache
    from transformers.integrations.executorch import register_dynamic_cache_export_support

    if DynamicCache not in torch.utils._pytree.SUPPORTED_NODES:
        register_dynamic_cache_export_support()
    cache = DynamicCache()
    for layer in range(layers):
        key, value = torch.randn(2, batch, heads, past, width).unbind()
        cache.update(key, value, layer)
    return call(input_ids=ids(batch, 1), past_key_values=cache, use_cache=True)


def cache_axes(layers: int = 2) -> Axes:
    axes: dict[str, Any] = {"input_ids": {0: "batch"}}
    for kind in ("key_cache", "value_cache"):
        axes |= {f"past_key_values.{kind}[{i}]": {0: "batch", 2: "past"} for i in range(layers)}
    return axes


def translation(batch: int, length: int) -> ZooCall:
    return call(
        input_ids=ids(batch, length),
        attention_mask=mask(batch, length),
        decoder_input_ids=ids(batch, length // 2),
        use_cache=False,
    )


TRANSLATION: Axes = {**TEXT, "decoder_input_ids": {0: "batch", 1: "target_length"}}
BART_LIKE = {"vocab_size": 99, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
             "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
             "max_position_embeddings": 64, "pad_token_id": 1}  # fmt: skip
T5_LIKE = {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}

ENCODERS = [
    hf("encoder", "BertModel", "BertConfig", text, TEXT, **BERT_LIKE),
    hf("encoder", "BertForSequenceClassification", "BertConfig", positional, TEXT, **BERT_LIKE),
    hf("encoder", "BertForQuestionAnswering", "BertConfig", text, TEXT, **BERT_LIKE),
    hf("encoder", "RobertaForMaskedLM", "RobertaConfig", text, TEXT, **BERT_LIKE),
    hf("encoder", "XLMRobertaModel", "XLMRobertaConfig", text, TEXT, **BERT_LIKE),
    hf("encoder", "CamembertForTokenClassification", "CamembertConfig", text, TEXT, **BERT_LIKE),
    hf("encoder", "DistilBertModel", "DistilBertConfig", text, TEXT, vocab_size=99, dim=32, n_layers=2, n_heads=4,
       hidden_dim=64, max_position_embeddings=64),
    hf("encoder", "AlbertModel", "AlbertConfig", text, TEXT, **BERT_LIKE, embedding_size=16),
    hf("encoder", "ElectraForSequenceClassification", "ElectraConfig", text, TEXT, **BERT_LIKE, embedding_size=16),
    hf("encoder", "MPNetModel", "MPNetConfig", text, TEXT, **BERT_LIKE),
    hf("encoder", "DebertaModel", "DebertaConfig", text, TEXT, **BERT_LIKE, relative_attention=True,
       pos_att_type=["c2p", "p2c"]),
    hf("encoder", "DebertaV2Model", "DebertaV2Config", text, TEXT, **BERT_LIKE, relative_attention=True,
       pos_att_type=["c2p", "p2c"], position_buckets=8),
    hf("encoder", "ModernBertModel", "ModernBertConfig", text, TEXT, **BERT_LIKE, pad_token_id=0, bos_token_id=1,
       eos_token_id=2, cls_token_id=1, sep_token_id=2),
    hf("encoder", "FNetModel", "FNetConfig", only_ids, {"input_ids": BATCH_LENGTH}, vocab_size=99, hidden_size=32,
       num_hidden_layers=2, intermediate_size=64, max_position_embeddings=64),
    hf("encoder", "RoFormerModel", "RoFormerConfig", text, TEXT, **BERT_LIKE, embedding_size=32),
    hf("encoder", "MobileBertModel", "MobileBertConfig", text, TEXT, **BERT_LIKE, embedding_size=16,
       intra_bottleneck_size=32, true_hidden_size=32),
    hf("encoder", "SqueezeBertModel", "SqueezeBertConfig", text, TEXT, **BERT_LIKE, embedding_size=32),
    hf("encoder", "EsmModel", "EsmConfig", text, TEXT, **BERT_LIKE, pad_token_id=1, position_embedding_type="rotary"),
    hf("encoder", "XLNetModel", "XLNetConfig", text, TEXT, vocab_size=99, d_model=32, n_layer=2, n_head=4, d_inner=64),
    hf("encoder", "LongformerModel", "LongformerConfig", text, TEXT, **BERT_LIKE, attention_window=4, pad_token_id=1),
    hf("encoder", "FunnelModel", "FunnelConfig", text, TEXT, vocab_size=99, block_sizes=[1, 1], d_model=32, n_head=4,
       d_head=8, d_inner=64),
]  # fmt: skip

DECODERS = [
    hf("decoder", "GPT2LMHeadModel", "GPT2Config", no_cache, TEXT, **GPT_LIKE),
    hf("decoder", "GPTNeoForCausalLM", "GPTNeoConfig", no_cache, TEXT, vocab_size=99, hidden_size=32, num_layers=2,
       num_heads=4, attention_types=[[["global", "local"], 1]], max_position_embeddings=64),
    hf("decoder", "GPTNeoXForCausalLM", "GPTNeoXConfig", no_cache, TEXT, **BERT_LIKE),
    hf("decoder", "GPTJForCausalLM", "GPTJConfig", no_cache, TEXT, **GPT_LIKE, rotary_dim=4),
    hf("decoder", "GPTBigCodeForCausalLM", "GPTBigCodeConfig", no_cache, TEXT, **GPT_LIKE),
    hf("decoder", "CodeGenForCausalLM", "CodeGenConfig", no_cache, TEXT, **GPT_LIKE, rotary_dim=4),
    hf("decoder", "OPTForCausalLM", "OPTConfig", no_cache, TEXT, vocab_size=99, hidden_size=32, num_hidden_layers=2,
       num_attention_heads=4, ffn_dim=64, word_embed_proj_dim=32, max_position_embeddings=64),
    hf("decoder", "BloomForCausalLM", "BloomConfig", no_cache, TEXT, vocab_size=99, hidden_size=32, n_layer=2,
       n_head=4),
    hf("decoder", "FalconForCausalLM", "FalconConfig", no_cache, TEXT, vocab_size=99, hidden_size=32,
       num_hidden_layers=2, num_attention_heads=4),
    hf("decoder", "LlamaForCausalLM", "LlamaConfig", no_cache, TEXT, **LLAMA_LIKE),
    hf("decoder", "MistralForCausalLM", "MistralConfig", no_cache, TEXT, **LLAMA_LIKE, sliding_window=6),
    hf("decoder", "Qwen2ForCausalLM", "Qwen2Config", no_cache, TEXT, **LLAMA_LIKE),
    hf("decoder", "Qwen3ForCausalLM", "Qwen3Config", no_cache, TEXT, **LLAMA_LIKE, head_dim=8),
    hf("decoder", "GemmaForCausalLM", "GemmaConfig", no_cache, TEXT, **LLAMA_LIKE, head_dim=8),
    hf("decoder", "Gemma2ForCausalLM", "Gemma2Config", no_cache, TEXT, **LLAMA_LIKE, head_dim=8, sliding_window=6),
    hf("decoder", "Gemma3ForCausalLM", "Gemma3TextConfig", no_cache, TEXT, **LLAMA_LIKE, head_dim=8, sliding_window=6),
    hf("decoder", "PhiForCausalLM", "PhiConfig", no_cache, TEXT, **BERT_LIKE),
    hf("decoder", "Phi3ForCausalLM", "Phi3Config", no_cache, TEXT, **LLAMA_LIKE),
    hf("decoder", "StableLmForCausalLM", "StableLmConfig", no_cache, TEXT, **LLAMA_LIKE),
    hf("decoder", "CohereForCausalLM", "CohereConfig", no_cache, TEXT, **LLAMA_LIKE),
    hf("decoder", "Olmo2ForCausalLM", "Olmo2Config", no_cache, TEXT, **LLAMA_LIKE),
    hf("decoder", "GraniteForCausalLM", "GraniteConfig", no_cache, TEXT, **LLAMA_LIKE),
    hf("decoder", "MptForCausalLM", "MptConfig", no_cache, TEXT, vocab_size=99, d_model=32, n_layers=2, n_heads=4,
       max_seq_len=64),
    hf("decoder", "BioGptForCausalLM", "BioGptConfig", no_cache, TEXT, **BERT_LIKE),
    hf("decoder with cache", "GPT2LMHeadModel", "GPT2Config", partial(with_cache, heads=4, width=8), cache_axes(),
       id="GPT2LMHeadModel+cache", **GPT_LIKE),
    hf("decoder with cache", "LlamaForCausalLM", "LlamaConfig", partial(with_cache, heads=2, width=8), cache_axes(),
       id="LlamaForCausalLM+cache", **LLAMA_LIKE),
    hf("decoder with cache", "Qwen3ForCausalLM", "Qwen3Config", partial(with_cache, heads=2, width=8), cache_axes(),
       id="Qwen3ForCausalLM+cache", **LLAMA_LIKE, head_dim=8),
    hf("decoder with cache", "GPTNeoXForCausalLM", "GPTNeoXConfig", partial(with_cache, heads=4, width=8),
       cache_axes(), id="GPTNeoXForCausalLM+cache", **BERT_LIKE),
]  # fmt: skip

ENCODER_DECODERS = [
    hf("encoder-decoder", "T5ForConditionalGeneration", "T5Config", translation, TRANSLATION, **T5_LIKE),
    hf("encoder-decoder", "MT5Model", "MT5Config", translation, TRANSLATION, **T5_LIKE),
    hf("encoder-decoder", "T5EncoderModel", "T5Config", text, TEXT, **T5_LIKE),
    hf("encoder-decoder", "BartForConditionalGeneration", "BartConfig", translation, TRANSLATION, **BART_LIKE),
    hf("encoder-decoder", "BartForSequenceClassification", "BartConfig", ended, {"input_ids": BATCH_LENGTH},
       **BART_LIKE, eos_token_id=98),
    hf("encoder-decoder", "MBartForConditionalGeneration", "MBartConfig", translation, TRANSLATION, **BART_LIKE),
    hf("encoder-decoder", "MarianMTModel", "MarianConfig", translation, TRANSLATION, **BART_LIKE),
    hf("encoder-decoder", "PegasusForConditionalGeneration", "PegasusConfig", translation, TRANSLATION, **BART_LIKE),
    hf("encoder-decoder", "M2M100ForConditionalGeneration", "M2M100Config", translation, TRANSLATION, **BART_LIKE),
    hf("encoder-decoder", "BlenderbotSmallForConditionalGeneration", "BlenderbotSmallConfig", translation, TRANSLATION,
       **BART_LIKE),
]  # fmt: skip

EXPERTS = [
    hf("mixture of experts", "MixtralForCausalLM", "MixtralConfig", no_cache, TEXT, **LLAMA_LIKE, num_local_experts=4),
    hf("mixture of experts", "Qwen2MoeForCausalLM", "Qwen2MoeConfig", no_cache, TEXT, **LLAMA_LIKE, **MOE,
       shared_expert_intermediate_size=32),
    hf("mixture of experts", "Qwen3MoeForCausalLM", "Qwen3MoeConfig", no_cache, TEXT, **LLAMA_LIKE, **MOE, head_dim=8),
    hf("mixture of experts", "OlmoeForCausalLM", "OlmoeConfig", no_cache, TEXT, **LLAMA_LIKE, num_experts=4,
       num_experts_per_tok=2),
    hf("mixture of experts", "GptOssForCausalLM", "GptOssConfig", no_cache, TEXT, **LLAMA_LIKE, head_dim=8,
       num_local_experts=4, num_experts_per_tok=2, sliding_window=6),
    hf("mixture of experts", "DeepseekV3ForCausalLM", "DeepseekV3Config", no_cache, TEXT, **{**LLAMA_LIKE,
       "num_key_value_heads": 4}, moe_intermediate_size=32, n_routed_experts=8, n_group=2, topk_group=1,
       num_experts_per_tok=2, kv_lora_rank=16, q_lora_rank=16, qk_rope_head_dim=8, v_head_dim=8, qk_nope_head_dim=8,
       first_k_dense_replace=1),
    hf("mixture of experts", "SwitchTransformersForConditionalGeneration", "SwitchTransformersConfig", translation,
       TRANSLATION, **T5_LIKE, num_experts=4, num_sparse_encoder_layers=1, num_sparse_decoder_layers=1),
]  # fmt: skip

MAMBA_LIKE = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
STATE_SPACES = [
    hf("state space", "MambaForCausalLM", "MambaConfig", only_ids_no_cache, {"input_ids": BATCH_LENGTH},
       **MAMBA_LIKE, time_step_rank=4),
    hf("state space", "Mamba2ForCausalLM", "Mamba2Config", only_ids_no_cache, {"input_ids": BATCH_LENGTH},
       **MAMBA_LIKE, num_heads=8, head_dim=8, n_groups=2, chunk_size=4),
    hf("state space", "FalconMambaForCausalLM", "FalconMambaConfig", only_ids_no_cache, {"input_ids": BATCH_LENGTH},
       **MAMBA_LIKE, time_step_rank=4),
    hf("state space", "RwkvForCausalLM", "RwkvConfig", only_ids_no_cache, {"input_ids": BATCH_LENGTH}, vocab_size=99,
       hidden_size=32, num_hidden_layers=2, attention_hidden_size=32, intermediate_size=64, context_length=64),
    hf("state space", "RecurrentGemmaForCausalLM", "RecurrentGemmaConfig", only_ids_no_cache,
       {"input_ids": BATCH_LENGTH}, **LLAMA_LIKE, lru_width=32, attention_window_size=8),
    hf("state space", "JambaForCausalLM", "JambaConfig", no_cache, TEXT, **LLAMA_LIKE, num_experts=2,
       attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=1, use_mamba_kernels=False,
       mamba_d_state=4, mamba_d_conv=2, mamba_dt_rank=4),
]  # fmt: skip

MODELS = [*ENCODERS, *DECODERS, *ENCODER_DECODERS, *EXPERTS, *STATE_SPACES]
