"""The tests that `transformers` puts each of its own models to, run on ours.

`fetch_transformers_tests.py` puts them into ``.venv/transformers-tests``; the environment variable
``TRANSFORMERS_TESTS`` names another folder. They are read from there when this file is imported.
"""

import fnmatch
import importlib
import os
import sys
import types
import unittest
import unittest.mock
from pathlib import Path

import pytest
import torch
import transformers

from mutbert.model import (
    MutBertConfig,
    MutBertForMaskedLM,
    MutBertForSequenceClassification,
    MutBertForTokenClassification,
    MutBertModel,
)

FOLDER = Path(
    os.environ.get("TRANSFORMERS_TESTS") or Path(__file__).resolve().parents[2] / ".venv" / "transformers-tests"
)

# What is not run, by patterns of names, and why it can hold for no model such as these. What is skipped besides needs
# an accelerator, or a program for attention.
LEFT_OUT = {
    "there is one model, with no parts that have configurations": "*composite_models *_composite_model "
    "test_internal_model_config_and_subconfig_are_same",
    "there is no second modality, and positions have one axis": "test_get_*_features_* test_vision_axial_rope",
    "an encoder predicts tokens in their places": "test_causal_lm_loss_honors_shift_labels "
    "test_encoder_decoder_loss_no_double_shift",
    "there are no experts": "test_eager_matches_batched_and_grouped_inference_* *_router_logits*",
    "every position attends to all, without weights for positions": "test_sliding_window_mask "
    "test_resize_position_vector_embeddings",
    "what layers give is handed on, not captured by hooks": "test_can_capture_specific_layers_hidden_states "
    "test_capture_outputs_decorator",
    "weights have the same names in a checkpoint and in the model": "test_can_load_from_already_mapped_keys "
    "test_reverse_loading_mapping",
    "no part of the weights is kept in float32 when the rest is not": "test_keep_in_fp32_modules*",
    "there is no plan to split a layer over devices": "test_tp_plan_matches_params test_tied_head_has_a_tp_plan_entry",
    "rotary tables come from a function, tested in test_modeling.py": "test_model_rope_scaling_frequencies "
    "test_model_rope_with_partial_rotation",
    "the configuration refuses this scaling": "test_model_rope_scaling_from_config_*_yarn",
    "attention weights are refused where sdpa has none": "test_eager_matches_sdpa_inference_*_output_attentions",
    "the vocabulary is fixed, as test_modeling.py tests": "test_resize_*embeddings*",
}


def load_common_tests():
    """Import them as a package of its own, and leave this module out where they are not those of the library."""
    if not (FOLDER / "VERSION").is_file():
        pytest.skip(f"no tests in {FOLDER}; run fetch_transformers_tests.py", allow_module_level=True)
    version = (FOLDER / "VERSION").read_text().strip()
    if version != transformers.__version__:
        pytest.skip(
            f"{FOLDER} has the tests of transformers {version}, not of {transformers.__version__}; "
            "run fetch_transformers_tests.py",
            allow_module_level=True,
        )
    name = "transformers_common_tests"
    stand_in(name, __path__=[str(FOLDER)])
    # Siblings that they import, which are not distributed. The first two test exports and text generation.
    stand_in(f"{name}.exporters.test_export", ExportTesterMixin=type("ExportTesterMixin", (), {}))
    stand_in(f"{name}.generation.test_utils", GenerationTesterMixin=type("GenerationTesterMixin", (), {}))
    stand_in(f"{name}.utils.test_configuration_utils", config_common_kwargs=OTHER_THAN_DEFAULT)
    # Their marks choose what to run elsewhere, and are not declared here.
    with unittest.mock.patch.object(pytest, "mark", NoMarks()):
        return [
            importlib.import_module(f"{name}.{part}") for part in ("test_modeling_common", "test_configuration_common")
        ]


def stand_in(name, **values):
    package = name.rpartition(".")[0]
    if package and package not in sys.modules:
        stand_in(package, __path__=[])
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(values)


class NoMarks:
    """Takes the place of `pytest.mark`: its marks leave a test as it is."""

    def __getattr__(self, _name):
        return lambda *given, **_: given[0] if given and callable(given[0]) else lambda test: test


# Values that every configuration of the library has, which ours is to keep.
OTHER_THAN_DEFAULT = {
    "architectures": ["MutBertModel"], "chunk_size_feed_forward": 5, "dtype": "float16", "return_dict": False,
    "id2label": {0: "deleterious", 1: "benign", 2: "unknown"}, "problem_type": "regression",
    "label2id": {"deleterious": 0, "benign": 1, "unknown": 2}, "output_attentions": True, "output_hidden_states": True,
}  # fmt: skip

common, common_config = load_common_tests()

# They choose the labels, and what to test at all, by these lists of the library's own models.
common.MODEL_MAPPING_NAMES = {**common.MODEL_MAPPING_NAMES, "mutbert": "MutBertModel"}
for task, model_class in {
    "MASKED_LM": MutBertForMaskedLM,
    "SEQUENCE_CLASSIFICATION": MutBertForSequenceClassification,
    "TOKEN_CLASSIFICATION": MutBertForTokenClassification,
}.items():
    names = f"MODEL_FOR_{task}_MAPPING_NAMES"
    setattr(common, names, {**getattr(common, names), "mutbert": model_class.__name__})


def set_rope_parameters(config, values):
    """As their function of this name does, which changes a dict that lies in the configuration."""
    config.rope_parameters = {key: values[key] for key in ("rope_type", "factor", "rope_theta") if key in values}


common._config_supports_rope_scaling = lambda _: True
common._set_config_rope_params = set_rope_parameters


class ModelTester:
    """The small model and its input; the names are what the common tests ask for."""

    is_training, attention = True, None
    batch_size, seq_length, hidden_size, num_hidden_layers, num_attention_heads = 3, 7, 32, 2, 4

    def get_config(self):
        # Weights so large that positions and masks count; as many token types as they draw for a larger batch.
        config = MutBertConfig(
            vocab_size=9, hidden_size=self.hidden_size, num_hidden_layers=self.num_hidden_layers, intermediate_size=48,
            num_attention_heads=self.num_attention_heads, max_position_embeddings=16, initializer_range=0.2,
            type_vocab_size=5, pad_token_id=3,
        )  # fmt: skip
        config._attn_implementation = self.attention
        return config

    def prepare_config_and_inputs_for_common(self):
        shape = (self.batch_size, self.seq_length)
        return self.get_config(), {
            "input_ids": common.ids_tensor(shape, 9),
            "attention_mask": common.random_attention_mask(shape),
            "token_type_ids": common.ids_tensor(shape, 5),
        }


class TestMutBert(common.ModelTesterMixin, unittest.TestCase):
    all_model_classes = (
        MutBertModel, MutBertForMaskedLM, MutBertForSequenceClassification, MutBertForTokenClassification
    )  # fmt: skip
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
        common_config.ConfigTester(
            self, config_class=MutBertConfig, hidden_size=32, num_attention_heads=4
        ).run_common_tests()

    def test_model_outputs_equivalence(self):
        # It asks for attention weights, which only this attention gives.
        self.model_tester.attention = "eager"
        super().test_model_outputs_equivalence()


for name in dir(TestMutBert):
    if any(fnmatch.fnmatchcase(name, pattern) for patterns in LEFT_OUT.values() for pattern in patterns.split()):
        setattr(TestMutBert, name, None)
