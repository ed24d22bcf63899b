"""Vision and audio models of Hugging Face transformers, tiny, with random weights."""

from typing import Any

import torch

from zoo_models.model import BATCH, BATCH_LENGTH, Axes, ZooCall, ZooModel, call, ids, image, mask
from zoo_models.transformers_text import BART_LIKE, BERT_LIKE, hf

VIT_LIKE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
            "image_size": 32, "patch_size": 8}  # fmt: skip
SWIN_LIKE = {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2],
             "window_size": 4}  # fmt: skip
CONV_LIKE = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
PIXELS: Axes = {"pixel_values": BATCH}
WAVE: Axes = {"input_values": BATCH_LENGTH}
WAV2VEC_LIKE = {"vocab_size": 32, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
                "intermediate_size": 64, "conv_dim": (16, 16), "conv_kernel": (8, 4), "conv_stride": (4, 2),
                "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "mask_time_prob": 0.0}  # fmt: skip


def pixels(batch: int, size: int) -> ZooCall:
    return call(pixel_values=image(batch, size))


def pixels_positional(batch: int, size: int) -> ZooCall:
    return call(image(batch, size))


def wave(batch: int, length: int) -> ZooCall:
    return call(input_values=torch.randn(batch, length))


def clip(batch: int, length: int) -> ZooCall:
    return call(input_ids=ids(batch, length), pixel_values=image(batch), attention_mask=mask(batch, length))


def spectrogram(batch: int, frames: int) -> ZooCall:
    return call(input_values=torch.randn(batch, frames, 16))


def speech(batch: int, target_length: int) -> ZooCall:
    features = torch.randn(batch, 16, 64)
    return call(input_features=features, decoder_input_ids=ids(batch, target_length), use_cache=False)


def speech_frames(batch: int, frames: int) -> ZooCall:
    features, decoded = torch.randn(batch, frames, 16), ids(batch, 5)
    return call(input_features=features, decoder_input_ids=decoded, use_cache=False)


def series(batch: int, length: int) -> ZooCall:
    return call(past_values=torch.randn(batch, length, 3))


def vision(model: str, config: str, size: int = 32, how: Any = pixels, **settings: Any) -> ZooModel:
    sizes = {"sizes": (2, size), "other_sizes": (3, size)}
    return hf("vision", model, config, how, PIXELS, **sizes, **settings)  # type: ignore[arg-type]


def audio(model: str, config: str, **settings: Any) -> ZooModel:
    return hf("audio", model, config, wave, WAVE, sizes=(2, 400), other_sizes=(3, 560), **settings)


def towers(config: str) -> dict[str, Any]:
    text = {**BERT_LIKE, "bos_token_id": 0, "eos_token_id": 98, "pad_token_id": 1}
    return {"text_config": text, "vision_config": VIT_LIKE} | ({"projection_dim": 16} if config == "CLIPConfig" else {})


CLIP_AXES: Axes = {"input_ids": BATCH_LENGTH, "attention_mask": BATCH_LENGTH, "pixel_values": {0: "images"}}
DETECTOR = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None, "d_model": 32,
            "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
            "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_queries": 5}  # fmt: skip


def resnet_backbone() -> dict[str, Any]:
    return {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1],
            "layer_type": "basic", "out_features": ["stage4"]}  # fmt: skip


VISION = [
    vision("ViTForImageClassification", "ViTConfig", **VIT_LIKE),
    vision("ViTModel", "ViTConfig", how=pixels_positional, **VIT_LIKE),
    vision("DeiTModel", "DeiTConfig", **VIT_LIKE),
    vision("BeitModel", "BeitConfig", **VIT_LIKE),
    vision("Dinov2Model", "Dinov2Config", **VIT_LIKE),
    vision("SwinModel", "SwinConfig", **SWIN_LIKE),
    vision("Swinv2Model", "Swinv2Config", **SWIN_LIKE),
    vision("ConvNextForImageClassification", "ConvNextConfig", size=64, **CONV_LIKE),
    vision("ConvNextV2Model", "ConvNextV2Config", size=64, **CONV_LIKE),
    vision("ResNetModel", "ResNetConfig", size=64, embedding_size=8, layer_type="basic", **CONV_LIKE),
    vision("RegNetModel", "RegNetConfig", size=64, embedding_size=8, groups_width=8, **CONV_LIKE),
    vision("MobileNetV2Model", "MobileNetV2Config", size=64, depth_multiplier=0.35),
    vision("MobileViTModel", "MobileViTConfig", size=64, image_size=64, hidden_sizes=[16, 24, 32],
           neck_hidden_sizes=[8, 8, 16, 16, 24, 32, 32], num_attention_heads=4),
    vision("SegformerForSemanticSegmentation", "SegformerConfig", size=64, hidden_sizes=[8, 16, 16, 32],
           depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 4], decoder_hidden_size=16),
    vision("PvtModel", "PvtConfig", size=64, image_size=64, hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1],
           num_attention_heads=[1, 2, 2, 4]),
    vision("PoolFormerModel", "PoolFormerConfig", size=64, hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1]),
    vision("LevitModel", "LevitConfig", size=64, image_size=64, hidden_sizes=[16, 24, 32],
           num_attention_heads=[2, 3, 4], depths=[1, 1, 1], key_dim=[8, 8, 8]),
    vision("YolosForObjectDetection", "YolosConfig", **{**VIT_LIKE, "image_size": [32, 32]}, num_detection_tokens=5),
    vision("ViTMAEModel", "ViTMAEConfig", **VIT_LIKE, mask_ratio=0.0),
    vision("DPTForDepthEstimation", "DPTConfig", **{**VIT_LIKE, "num_hidden_layers": 4},
           backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=16),
    vision("DetrForObjectDetection", "DetrConfig", size=64, **DETECTOR, backbone_config=resnet_backbone()),
    hf("vision and text", "CLIPModel", "CLIPConfig", clip, CLIP_AXES, **towers("CLIPConfig")),
    hf("vision and text", "SiglipModel", "SiglipConfig", clip, CLIP_AXES, **towers("SiglipConfig")),
    hf("vision and text", "CLIPVisionModel", "CLIPVisionConfig", pixels, PIXELS, sizes=(2, 32), other_sizes=(3, 32),
       **VIT_LIKE),
    hf("vision and text", "CLIPTextModel", "CLIPTextConfig", lambda batch, length: call(ids(batch, length)),
       {"input_ids": BATCH_LENGTH}, **BERT_LIKE, bos_token_id=0, eos_token_id=98),
]  # fmt: skip

AUDIO = [
    audio("Wav2Vec2Model", "Wav2Vec2Config", **WAV2VEC_LIKE),
    audio("Wav2Vec2ForCTC", "Wav2Vec2Config", **WAV2VEC_LIKE),
    audio("HubertModel", "HubertConfig", **WAV2VEC_LIKE),
    audio("WavLMModel", "WavLMConfig", **WAV2VEC_LIKE),
    hf("audio", "ASTModel", "ASTConfig", spectrogram, {"input_values": BATCH}, sizes=(2, 24), other_sizes=(3, 24),
       hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, patch_size=8,
       frequency_stride=8, time_stride=8, max_length=24, num_mel_bins=16),
    hf("audio", "WhisperForConditionalGeneration", "WhisperConfig", speech,
       {"input_features": BATCH, "decoder_input_ids": BATCH_LENGTH}, **{**BART_LIKE, "max_position_embeddings": 64},
       num_mel_bins=16, max_source_positions=32, max_target_positions=64, decoder_start_token_id=2, eos_token_id=3,
       bos_token_id=2),
    hf("audio", "Speech2TextForConditionalGeneration", "Speech2TextConfig", speech_frames,
       {"input_features": {0: "batch", 1: "frames"}, "decoder_input_ids": BATCH}, sizes=(2, 32), other_sizes=(3, 48),
       **BART_LIKE, input_feat_per_channel=16, conv_channels=16, max_source_positions=64, max_target_positions=64),
    hf("time series", "PatchTSTModel", "PatchTSTConfig", series, {"past_values": BATCH}, sizes=(2, 32),
       other_sizes=(3, 32), num_input_channels=3, context_length=32, patch_length=8, patch_stride=8, d_model=32,
       num_hidden_layers=2, num_attention_heads=4, ffn_dim=64, use_cls_token=True, do_mask_input=False),
]  # fmt: skip

MODELS = [*VISION, *AUDIO]
