"""Tiny random models of many architectures, and what each is called with."""

from dataclasses import dataclass, field
from typing import Any

import torch
import transformers

TEXT = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
}
"""Fields that most text models share, so small that a model has a few thousand parameters."""

GROUPED = TEXT | {"num_key_value_heads": 2, "head_dim": 8}
PATCHES = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
}
PICTURE_TOKEN = 45
PICTURE = {"pixel_values": (2, 3, 16, 16)}


@dataclass(frozen=True)
class Architecture:
    """A model class of transformers, the fields of its configuration, and the shape of its input.

    `inputs` are shapes: of token numbers for what ends in "ids", of numbers for the rest; `given`
    are inputs of themselves. Every text begins with so many tokens that stand for its picture.
    """

    model: str
    config: str
    fields: dict[str, Any]
    inputs: dict[str, tuple[int, ...]] = field(default_factory=lambda: {"input_ids": (2, 6)})
    given: dict[str, Any] = field(default_factory=dict)
    picture_tokens: int = 0

    def build(self, seed: int = 0) -> torch.nn.Module:
        """Return the model with values large enough that every layer shows in the output."""
        torch.manual_seed(seed)
        config = getattr(transformers, self.config)(**self.fields)
        config._attn_implementation = "eager"
        model = getattr(transformers, self.model)(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                noise = 0.3 * torch.randn_like(parameter)
                parameter.copy_(noise if parameter.ndim >= 2 else parameter + noise)
        model.tie_weights()
        return model

    def feed(self, seed: int = 1) -> dict[str, torch.Tensor]:
        """Return an input of the model."""
        generator = torch.Generator().manual_seed(seed)
        feed = {
            name: torch.randint(5, 40, shape, generator=generator)
            if name.endswith("ids")
            else torch.randn(shape, generator=generator)
            for name, shape in self.inputs.items()
        }
        if self.picture_tokens:
            feed["input_ids"][:, : self.picture_tokens] = PICTURE_TOKEN
        return feed | {name: torch.tensor(value) for name, value in self.given.items()}


def text(model: str, config: str, inputs: Any = None, base: Any = TEXT, **fields: Any) -> Any:
    """Return a text model, with the common fields but for those given."""
    more = {} if inputs is None else {"inputs": inputs}
    return Architecture(model, config, base | fields, **more)


BOTH_IDS = {"input_ids": (2, 6), "decoder_input_ids": (2, 5)}

ARCHITECTURES = {
    # Decoders
    "llama": text("LlamaForCausalLM", "LlamaConfig", base=GROUPED),
    "llama4_text": text(
        "Llama4ForCausalLM", "Llama4TextConfig", base=GROUPED,
        intermediate_size_mlp=40, num_local_experts=2, num_experts_per_tok=1,
    ),
    "qwen3": text("Qwen3ForCausalLM", "Qwen3Config", base=GROUPED),
    "qwen3_moe": text(
        "Qwen3MoeForCausalLM", "Qwen3MoeConfig", base=GROUPED,
        num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
    ),
    "qwen3_next": text(
        "Qwen3NextForCausalLM", "Qwen3NextConfig", base=GROUPED,
        num_hidden_layers=2, layer_types=["linear_attention", "full_attention"],
        linear_num_key_heads=2, linear_num_value_heads=2, linear_key_head_dim=8,
        linear_value_head_dim=8, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
    ),
    "mixtral": text(
        "MixtralForCausalLM", "MixtralConfig", base=GROUPED,
        num_local_experts=2, num_experts_per_tok=1,
    ),
    "deepseek_v3": text(
        "DeepseekV3ForCausalLM", "DeepseekV3Config", num_hidden_layers=2, first_k_dense_replace=1,
        moe_intermediate_size=16, n_routed_experts=4, n_shared_experts=1, n_group=1, topk_group=1,
        num_experts_per_tok=2, kv_lora_rank=8, q_lora_rank=8, qk_rope_head_dim=4,
        qk_nope_head_dim=8, v_head_dim=8, num_key_value_heads=4,
    ),
    "gemma3_text": text("Gemma3ForCausalLM", "Gemma3TextConfig", base=GROUPED),
    "gemma3n_text": text(
        "Gemma3nForCausalLM", "Gemma3nTextConfig", base=GROUPED, num_hidden_layers=2,
        intermediate_size=[40, 40], num_kv_shared_layers=0, layer_types=["full_attention"] * 2,
        hidden_size_per_layer_input=8, vocab_size_per_layer_input=48, laurel_rank=4,
        activation_sparsity_pattern=[0.0, 0.0],
    ),
    "gpt2": Architecture(
        "GPT2LMHeadModel", "GPT2Config",
        {"vocab_size": 48, "n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 16},
    ),
    "gpt_neox": text("GPTNeoXForCausalLM", "GPTNeoXConfig"),
    "gpt_neo": Architecture(
        "GPTNeoForCausalLM", "GPTNeoConfig",
        {"vocab_size": 48, "hidden_size": 32, "num_layers": 1, "num_heads": 4,
         "attention_types": [[["global"], 1]], "max_position_embeddings": 16},
    ),
    "gptj": Architecture(
        "GPTJForCausalLM", "GPTJConfig",
        {"vocab_size": 48, "n_embd": 32, "n_layer": 1, "n_head": 4, "rotary_dim": 4},
    ),
    "opt": text(
        "OPTForCausalLM", "OPTConfig", ffn_dim=40, word_embed_proj_dim=24,
        max_position_embeddings=16,
    ),
    "bloom": Architecture(
        "BloomForCausalLM", "BloomConfig",
        {"vocab_size": 48, "hidden_size": 32, "n_layer": 1, "n_head": 4},
    ),
    "phi3": text("Phi3ForCausalLM", "Phi3Config", base=GROUPED, pad_token_id=0),
    "falcon": text("FalconForCausalLM", "FalconConfig"),
    "modernbert_decoder": text(
        "ModernBertDecoderForCausalLM", "ModernBertDecoderConfig", pad_token_id=0
    ),
    # State spaces and recurrences
    "mamba": Architecture(
        "MambaForCausalLM", "MambaConfig",
        {"vocab_size": 48, "hidden_size": 32, "num_hidden_layers": 1, "state_size": 4,
         "time_step_rank": 4},
    ),
    "mamba2": Architecture(
        "Mamba2ForCausalLM", "Mamba2Config",
        {"vocab_size": 48, "hidden_size": 32, "num_hidden_layers": 1, "state_size": 8,
         "num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 8},
    ),
    "falcon_mamba": Architecture(
        "FalconMambaForCausalLM", "FalconMambaConfig",
        {"vocab_size": 48, "hidden_size": 32, "num_hidden_layers": 1, "state_size": 4,
         "time_step_rank": 4},
    ),
    "falcon_h1": text(
        "FalconH1ForCausalLM", "FalconH1Config", base=GROUPED, mamba_d_ssm=32, mamba_n_heads=4,
        mamba_d_head=8, mamba_d_state=8, mamba_n_groups=1, mamba_chunk_size=8,
    ),
    "jamba": text(
        "JambaForCausalLM", "JambaConfig", base=TEXT | {"num_key_value_heads": 2},
        num_hidden_layers=2, attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2,
        expert_layer_offset=1, num_experts=2, num_experts_per_tok=1, mamba_d_state=4,
        mamba_dt_rank=4, use_mamba_kernels=False, pad_token_id=0,
    ),
    "zamba2": text(
        "Zamba2ForCausalLM", "Zamba2Config", num_hidden_layers=4, num_key_value_heads=4,
        attention_head_dim=16, layers_block_type=["mamba", "hybrid", "mamba", "hybrid"],
        mamba_d_state=8, mamba_headdim=8, n_mamba_heads=8, mamba_ngroups=1, chunk_size=8,
        num_mem_blocks=1, use_shared_attention_adapter=False, adapter_rank=4,
        use_mamba_kernels=False,
    ),
    "rwkv": Architecture(
        "RwkvForCausalLM", "RwkvConfig",
        {"vocab_size": 48, "hidden_size": 32, "num_hidden_layers": 2, "context_length": 16},
    ),
    # Encoders
    "bert": text("BertForMaskedLM", "BertConfig"),
    "bert_classifier": text("BertForSequenceClassification", "BertConfig", num_labels=3),
    "roberta": text("RobertaForMaskedLM", "RobertaConfig"),
    "albert": text("AlbertForMaskedLM", "AlbertConfig", embedding_size=16),
    "electra": text("ElectraForMaskedLM", "ElectraConfig", embedding_size=16),
    "deberta": text("DebertaForMaskedLM", "DebertaConfig"),
    "deberta_v2": text("DebertaV2ForMaskedLM", "DebertaV2Config"),
    "distilbert": Architecture(
        "DistilBertForMaskedLM", "DistilBertConfig",
        {"vocab_size": 48, "dim": 32, "hidden_dim": 40, "n_layers": 1, "n_heads": 4},
    ),
    "mobilebert": text(
        "MobileBertForMaskedLM", "MobileBertConfig", embedding_size=16,
        intra_bottleneck_size=16, true_hidden_size=16, num_feedforward_networks=2,
    ),
    "mpnet": text("MPNetForMaskedLM", "MPNetConfig"),
    "modernbert": text("ModernBertForMaskedLM", "ModernBertConfig", pad_token_id=0),
    "canine": text(
        "CanineForTokenClassification", "CanineConfig", {"input_ids": (2, 16)}, num_labels=3,
        num_hash_buckets=16, num_hash_functions=4, downsampling_rate=4, local_transformer_stride=8,
        upsampling_kernel_size=4,
    ),
    # Encoders with decoders
    "t5": Architecture(
        "T5ForConditionalGeneration", "T5Config",
        {"vocab_size": 48, "d_model": 32, "d_kv": 8, "d_ff": 40, "num_layers": 1, "num_heads": 4,
         "decoder_start_token_id": 0},
        BOTH_IDS,
    ),
    "bart": Architecture(
        "BartForConditionalGeneration", "BartConfig",
        {"vocab_size": 48, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1,
         "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 40,
         "decoder_ffn_dim": 40, "max_position_embeddings": 16},
        BOTH_IDS,
    ),
    "whisper": Architecture(
        "WhisperForConditionalGeneration", "WhisperConfig",
        {"vocab_size": 48, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1,
         "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 40,
         "decoder_ffn_dim": 40, "num_mel_bins": 8, "max_source_positions": 8,
         "max_target_positions": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
         "decoder_start_token_id": 1},
        {"input_features": (2, 8, 16), "decoder_input_ids": (2, 5)},
    ),
    # Pictures and sound
    "vit": Architecture("ViTForImageClassification", "ViTConfig", PATCHES, PICTURE),
    "dinov2": Architecture(
        "Dinov2ForImageClassification", "Dinov2Config", PATCHES | {"mlp_ratio": 2}, PICTURE
    ),
    "siglip_vision": Architecture("SiglipVisionModel", "SiglipVisionConfig", PATCHES, PICTURE),
    "swin": Architecture(
        "SwinForImageClassification", "SwinConfig",
        {"image_size": 16, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4],
         "window_size": 2, "mlp_ratio": 2},
        PICTURE,
    ),
    "convnext": Architecture(
        "ConvNextForImageClassification", "ConvNextConfig",
        {"hidden_sizes": [16, 24], "depths": [1, 1], "num_stages": 2, "patch_size": 4},
        PICTURE,
    ),
    "segformer": Architecture(
        "SegformerForSemanticSegmentation", "SegformerConfig",
        {"num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [2, 1], "hidden_sizes": [16, 32],
         "patch_sizes": [7, 3], "strides": [4, 2], "num_attention_heads": [2, 4],
         "mlp_ratios": [2, 2], "decoder_hidden_size": 16},
        {"pixel_values": (2, 3, 32, 32)},
    ),
    "wav2vec2": text(
        "Wav2Vec2ForCTC", "Wav2Vec2Config", {"input_values": (2, 400)}, conv_dim=[16, 16],
        conv_stride=[4, 4], conv_kernel=[8, 4], num_feat_extract_layers=2,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    ),
    "wavlm": text(
        "WavLMForCTC", "WavLMConfig", {"input_values": (2, 400)}, conv_dim=[16, 16],
        conv_stride=[4, 4], conv_kernel=[8, 4], num_feat_extract_layers=2,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    ),
    # Pictures with text
    "clip": Architecture(
        "CLIPModel", "CLIPConfig",
        {"text_config": TEXT | {"max_position_embeddings": 16, "eos_token_id": 2},
         "vision_config": PATCHES, "projection_dim": 16},
        {"input_ids": (2, 6)} | PICTURE,
    ),
    "siglip": Architecture(
        "SiglipModel", "SiglipConfig",
        {"text_config": TEXT | {"max_position_embeddings": 16}, "vision_config": PATCHES},
        {"input_ids": (2, 6)} | PICTURE,
    ),
    "gemma3": Architecture(
        "Gemma3ForConditionalGeneration", "Gemma3Config",
        {"text_config": GROUPED, "vision_config": PATCHES, "mm_tokens_per_image": 4,
         "image_token_index": 45, "boi_token_index": 46, "eoi_token_index": 47},
        {"input_ids": (2, 8)} | PICTURE, picture_tokens=4,
    ),
    "paligemma": Architecture(
        "PaliGemmaForConditionalGeneration", "PaliGemmaConfig",
        {"text_config": GROUPED | {"model_type": "gemma"},
         "vision_config": PATCHES | {"model_type": "siglip_vision_model"},
         "projection_dim": 32, "image_token_index": 45},
        {"input_ids": (2, 8)} | PICTURE, picture_tokens=4,
    ),
    "llava": Architecture(
        "LlavaForConditionalGeneration", "LlavaConfig",
        {"text_config": GROUPED | {"model_type": "llama"},
         "vision_config": PATCHES | {"model_type": "clip_vision_model"}, "image_token_index": 45,
         "vision_feature_layer": -1},
        {"input_ids": (2, 8)} | PICTURE, picture_tokens=4,
    ),
    "qwen2_vl": Architecture(
        "Qwen2VLForConditionalGeneration", "Qwen2VLConfig",
        {"text_config": TEXT | {
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2],
                                "rope_theta": 1e4}},
         "vision_config": {"depth": 1, "embed_dim": 32, "num_heads": 4, "hidden_size": 32,
                           "mlp_ratio": 2, "patch_size": 8},
         "image_token_id": 45, "video_token_id": 46, "vision_start_token_id": 43,
         "vision_end_token_id": 44},
        {"input_ids": (2, 8), "pixel_values": (8, 384)},
        {"image_grid_thw": [[1, 2, 2]] * 2, "mm_token_type_ids": [[1] + [0] * 7] * 2},
        picture_tokens=1,
    ),
}  # fmt: skip
