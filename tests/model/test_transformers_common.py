"""The tests that `transformers` has for each of its own models, run on ours.

They are in no wheel: ``make test-all`` unpacks them from the source distribution into ``.venv/transformers-tests``,
and without them these are skipped.
"""

import fnmatch
import importlib
import sys
import types
import unittest
import unittest.mock
from pathlib import Path

import pytest
import torch
import transformers

from mutbert import model as ours

FOLDER = Path(__file__).resolve().parents[2] / ".venv" / "transformers-tests"

# Tests of what these models do not have: parts with configurations, other modalities, generation, experts, windows of
# attention, learned positions, hooks, other names of weights, splits over devices, a vocabulary that grows, YaRN,
# attention weights of sdpa. Rotary tables are tested in test_modeling.py.
LEFT_OUT = """
*composite_models *_composite_model test_internal_model_config_and_subconfig_are_same test_get_*_features_*
test_vision_axial_rope test_causal_lm_loss_honors_shift_labels test_encoder_decoder_loss_no_double_shift
test_eager_matches_batched_and_grouped_inference_* *_router_logits* test_sliding_window_mask
test_resize_position_vector_embeddings test_can_capture_specific_layers_hidden_states test_capture_outputs_decorator
test_can_load_from_already_mapped_keys test_reverse_loading_mapping test_keep_in_fp32_modules*
test_tp_plan_matches_params test_tied_head_has_a_tp_plan_entry test_model_rope_scaling_frequencies
test_model_rope_with_partial_rotation test_model_rope_scaling_from_config_*_yarn
test_eager_matches_sdpa_inference_*_output_attentions test_resize_*embeddings*
"""
# Values that every configuration of the library has, and ours is to keep.
OTHER_THAN_DEFAULT = {
    "architectures": ["MutBertModel"], "chunk_size_feed_forward": 5, "dtype": "float16", "return_dict": False,
    "id2label": {0: "deleterious", 1: "benign", 2: "unknown"}, "problem_type": "regression",
    "label2id": {"deleterious": 0, "benign": 1, "unknown": 2}, "output_attentions": True, "output_hidden_states": True,
}  # fmt: skip
HEADS = {"MASKED_LM": "ForMaskedLM", "SEQUENCE_CLASSIFICATION": "ForSequenceClassification",
         "TOKEN_CLASSIFICATION": "ForTokenClassification"}  # fmt: skip

if not (FOLDER / transformers.__version__).is_file():
    pytest.skip(f"{FOLDER} has no tests of transformers {transformers.__version__}", allow_module_level=True)


def stand_in(name, **values):
    """Put a module where their tests import it from, and the packages that it is in."""
    package = name.rpartition(".")[0]
    if package and package not in sys.modules:
        stand_in(package, __path__=[])
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(values)


class NoMarks:
    """Takes the place of `pytest.mark`: theirs choose what to run elsewhere, and are not declared here."""

    def __getattr__(self, _name):
        return lambda *given, **_: given[0] if given and callable(given[0]) else lambda test: test


stand_in("theirs", __path__=[str(FOLDER)])
# Siblings that are not distributed.
stand_in("theirs.exporters.test_export", ExportTesterMixin=type("ExportTesterMixin", (), {}))
stand_in("theirs.generation.test_utils", GenerationTesterMixin=type("GenerationTesterMixin", (), {}))
stand_in("theirs.utils.test_configuration_utils", config_common_kwargs=OTHER_THAN_DEFAULT)
with unittest.mock.patch.object(pytest, "mark", NoMarks()):
    common = importlib.import_module("theirs.test_modeling_common")
    common_config = importlib.import_module("theirs.test_configuration_common")

# They choose the labels, and what to test at all, by lists of the library's own models.
common.MODEL_MAPPING_NAMES = {**common.MODEL_MAPPING_NAMES, "mutbert": "MutBertModel"}
for task, head in HEADS.items():
    names = f"MODEL_FOR_{task}_MAPPING_NAMES"
    setattr(common, names, {**getattr(common, names), "mutbert": f"MutBert{head}"})


def set_rope_parameters(config, values):
    """As their function of this name does, which changes a dict that lies in the configuration."""
    config.rope_parameters = {key: values[key] for key in ("rope_type", "factor", "rope_theta") if key in values}


common._config_supports_rope_scaling = lambda _: True
common._set_config_rope_params = set_rope_parameters


class ModelTester:
    """A small model and its input, by the names that the tests ask for."""

    is_training, attention = True, None
    batch_size, seq_length, hidden_size, num_hidden_layers, num_attention_heads = 3, 7, 32, 2, 4

    def get_config(self):
        # Weights so large that positions and masks count; as many token types as they draw for a larger batch.
        config = ours.MutBertConfig(
            hidden_size=32, num_hidden_layers=self.num_hidden_layers, num_attention_heads=4, intermediate_size=48,
            max_position_embeddings=16, initializer_range=0.2, type_vocab_size=5,
        )  # fmt: skip
        config._attn_implementation = self.attention
        return config

    def prepare_config_and_inputs_for_common(self):
        shape = (self.batch_size, self.seq_length)
        ids, types_of_tokens = common.ids_tensor(shape, 9), common.ids_tensor(shape, 5)
        mask = common.random_attention_mask(shape)
        return self.get_config(), {"input_ids": ids, "attention_mask": mask, "token_type_ids": types_of_tokens}


@pytest.mark.nightly
class TestMutBert(common.ModelTesterMixin, unittest.TestCase):
    all_model_classes = (ours.MutBertModel, *(getattr(ours, f"MutBert{head}") for head in HEADS.values()))
    additional_model_inputs = ("token_type_ids",)
    # The library asks it of its newer models alone.
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self):
        common.global_rng.seed(0)
        torch.manual_seed(0)
        self.model_tester = ModelTester()

    def skipTest(self, reason):  # noqa: N802
        """Fail: a test that passes over what it finds missing hides it. What is missing on purpose is in `LEFT_OUT`."""
        self.fail(f"would be skipped: {reason}")

    def test_config(self):
        sizes = {"hidden_size": 32, "num_attention_heads": 4}
        common_config.ConfigTester(self, config_class=ours.MutBertConfig, **sizes).run_common_tests()

    def test_model_outputs_equivalence(self):
        # It asks for attention weights, which only this attention gives.
        self.model_tester.attention = "eager"
        super().test_model_outputs_equivalence()


for name in dir(TestMutBert):
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in LEFT_OUT.split()):
        setattr(TestMutBert, name, None)
