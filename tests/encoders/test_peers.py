"""The models that MutBERT is compared with: as the reference code computes them, and loaded whole or refused."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file

from mutbert import alphabet
from mutbert.encoders.adapter import open_encoder
from mutbert.encoders.inputs import PaddedWindows
from mutbert.encoders.known import MODELS
from mutbert.encoders.token_encoders import ProbedClassifier
from mutbert.errors import InputError
from mutbert.model.checkpoints import read_weights

NAMES = ("dnabert2", "nt-500m-1000g", "ntv2-50m", "caduceus-ph", "caduceus-ps")
FAMILIES = dict(zip(NAMES, ("dnabert2", "nt", "ntv2", "caduceus", "caduceus"), strict=True))
# A folder of the golden numbers, and the model whose layout it has.
GOLDEN = dict(zip(("dnabert2", "nt_v1", "nt_v2", "caduceus_ph", "caduceus_ps"), NAMES, strict=True))
LONGEST = 64
ONE_LINE = r"\A[^\n]+\Z"


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def folder(name, peer_folders):
    return peer_folders[name]


def read_json(path):
    return json.loads(path.read_text())


def change_config(folder, *dropped, **values):
    path = folder / "config.json"
    kept = {key: value for key, value in read_json(path).items() if key not in dropped}
    path.write_text(json.dumps({**kept, **values}))


def write_weights(folder, weights, form="safetensors"):
    """Replace the weights of a folder: one safetensors file, one .bin file, or several of these and an index."""
    for path in [*folder.glob("*.safetensors"), *folder.glob("*.bin"), *folder.glob("*.index.json")]:
        path.unlink()
    kept = {key: weight.clone() for key, weight in weights.items()}
    size = "50KB" if form == "parts" else "5GB"
    save_torch_state_dict(kept, folder, safe_serialization=form == "safetensors", max_shard_size=size)


def all_rows(encoder, examples):
    return encoder.inputs(examples).batch(np.arange(len(examples.offsets) - 1))


def noise_like(weight):
    """The same at every call, and different for every element: no norm or softmax takes it away."""
    return torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))


def logits_of(folder):
    """The masked model's logits of some sequences that differ in length."""
    encoder = open_encoder(folder)
    windows = PaddedWindows.of(list(map(alphabet.encode, ["ACGTTGCATGCCTAGGATCCATTA", "TTGACGTAACGGTAC", "GATTACA"])))
    batch = encoder.inputs(windows).batch(np.arange(3))
    with torch.inference_mode():
        model = encoder.masked(LONGEST)
        return model.logits(model.base_model(**batch)[0])[batch["attention_mask"].bool()]


@pytest.fixture(params=GOLDEN)
def golden(request, shared):
    """A folder of golden numbers: what loads it, the tensors, and what is said of each case."""
    folder = shared / "golden_peers" / request.param
    return open_encoder(folder), load_file(folder / "expected.safetensors"), read_json(folder / "cases.json")


def golden_cases(tensors, cases):
    """Go through the cases: name, what the model is given, and which tokens are none of padding."""
    for case in cases:
        batch = {key: tensors[f"{case}.{key}"] for key in ("input_ids", "attention_mask") if f"{case}.{key}" in tensors}
        # Caduceus is given none, and reads padding as a token.
        yield case, batch, batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()


@pytest.mark.shared
def test_hidden_states_and_logits_are_the_references(golden):
    encoder, tensors, said = golden
    body, model = encoder.body(LONGEST), encoder.masked(LONGEST)
    compared = 0
    for case, batch, real in golden_cases(tensors, said["cases"]):
        with torch.inference_mode():
            states, logits = body(**batch)[0], model.logits(model.base_model(**batch)[0])
            token_B = real.long().sum(dim=1) - 1
            some = encoder.masked_logits(model, batch, token_B)
        wanted = tensors[f"{case}.last_hidden_state"]
        # Of padding only DNABERT-2 says what it is: zeros.
        compare = torch.ones_like(real) if encoder.family == "dnabert2" else real
        torch.testing.assert_close(states[compare], wanted[compare], atol=2e-5, rtol=0)
        # The files keep only some rows or tokens of the large ones.
        kept = {"logits": np.s_[:, :], "logits_rows_0_1": np.s_[:2, :], "logits_last": np.s_[:, -4:]}
        ending = next(ending for ending in kept if f"{case}.{ending}" in tensors)
        wanted, real = tensors[f"{case}.{ending}"], real[kept[ending]]
        torch.testing.assert_close(logits[kept[ending]][real], wanted[real], atol=2e-4, rtol=0)
        torch.testing.assert_close(some, logits[torch.arange(len(logits)), token_B], atol=1e-5, rtol=1e-5)
        compared += 1
    assert compared == len(said["cases"]) >= 2


@pytest.mark.shared
def test_tokens_are_the_references(golden, examples_of):
    encoder, tensors, said = golden
    tokenizer = encoder.tokenizer
    for case, batch, real in golden_cases(tensors, said["cases"]):
        details, wanted = said["cases"][case], batch["input_ids"]
        found = tokenizer(details["sequences"])["input_ids"]
        # The papers that fine-tune Caduceus leave its [SEP] away, which pre-training had at the end.
        behind = int(details.get("special_tokens", False))
        for row, ids in enumerate(found):
            start = 0 if "attention_mask" in batch else wanted.shape[1] - behind - len(ids)
            for column in (column for masked_row, column in details["masked"] if masked_row == row):
                ids[column - start] = tokenizer.mask_token_id
            assert ids == wanted[row, start : start + len(ids)].tolist(), (case, row)
            assert set(wanted[row, :start].tolist()) <= {tokenizer.pad_token_id}
            assert "attention_mask" not in batch or int(real[row].sum()) == len(ids)
        if case == "single":
            assert all_rows(encoder, examples_of(details["sequences"]))["input_ids"].tolist() == found
    for edge in said.get("tokenized", ()):
        assert tokenizer(edge["sequence"])["input_ids"] == edge["ids"]
        assert tokenizer.convert_ids_to_tokens(edge["ids"]) == edge["tokens"]


def test_no_result_depends_on_padding(folder, examples_of, sequences):
    encoder = open_encoder(folder)
    inputs, body = encoder.inputs(examples_of(sequences)), encoder.body(LONGEST)
    torch.manual_seed(0)
    classifier = encoder.classifier(3, LONGEST)
    rows, reverse = np.arange(len(sequences)), np.arange(len(sequences)) % 2 == 1

    def run(rows, reverse):
        batch = inputs.batch(rows, reverse)
        real = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()
        # A mask in every row, as its embedding depends on the length of the row in NT v1.
        batch["input_ids"][torch.arange(len(rows)), real.long().sum(dim=1) - 1] = encoder.tokenizer.mask_token_id
        with torch.inference_mode():
            return encoder.hidden_states(body, batch), classifier(**batch).logits, real

    states, logits, real = run(rows, reverse)
    assert not real.all()
    for row in rows:
        wanted, wanted_logits, whole = run(rows[row : row + 1], reverse[row : row + 1])
        assert whole.all()
        torch.testing.assert_close(states[row][real[row]], wanted[0], atol=2e-5, rtol=0)
        torch.testing.assert_close(logits[row], wanted_logits[0], atol=2e-5, rtol=0)


def test_a_model_of_both_strands_has_the_same_states_and_predictions_on_either(peer_folders, examples_of, sequences):
    encoder = open_encoder(peer_folders["caduceus-ps"])
    inputs, body, rows = encoder.inputs(examples_of(sequences)), encoder.body(LONGEST), np.arange(len(sequences))
    classifier = encoder.classifier(3, LONGEST)
    batches = [inputs.batch(rows, np.full(len(rows), reverse)) for reverse in (False, True)]
    with torch.inference_mode():
        one, other = (encoder.hidden_states(body, batch) for batch in batches)
        predicted = [classifier(**batch).logits for batch in batches]
    for row, length in enumerate(map(len, sequences)):
        assert torch.allclose(one[row, :length], other[row, :length].flip(0), atol=2e-5)
    assert torch.allclose(*predicted, atol=2e-5)


def test_a_batch_too_large_for_one_scan_gives_the_same(peer_folders, examples_of, sequences):
    """A scan is given 256 MiB: at this size, 727 rows, of which 480 sequences are two each."""
    encoder, count = open_encoder(peer_folders["caduceus-ps"]), len(sequences)
    inputs, body = encoder.inputs(examples_of(40 * sequences)), encoder.body(LONGEST)
    with torch.inference_mode():
        few, many = (encoder.hidden_states(body, inputs.batch(np.arange(n))) for n in (count, 40 * count))
    for row, sequence in enumerate(40 * sequences):
        torch.testing.assert_close(many[row, : len(sequence)], few[row % count, : len(sequence)], atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    "known", [model for model in MODELS if model.family != "mutbert"], ids=lambda model: model.name
)
def test_parameters_are_those_of_the_published_files(peer_files, known, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(peer_files.PUBLISHED[known.name]))
    encoder = open_encoder(f"random:{tmp_path}")
    with torch.device("meta"):
        parameters = sum(weight.numel() for weight in encoder.masked(LONGEST).parameters())
    assert parameters == peer_files.count(known.name) == known.parameters
    assert encoder.family == known.family


@pytest.mark.parametrize("name", ["dnabert2", "caduceus-ph", "caduceus-ps"])
def test_a_second_name_of_a_weight_may_be_absent_or_agrees(name, copied, peer_files):
    folder = copied(name)
    weights = read_weights(folder)
    tied = {key: peer_files.tied_to(key) for key in peer_files.shapes_of(read_json(folder / "config.json"))}
    tied = {key: first for key, first in tied.items() if first}
    assert len(tied) == (1 if name == "dnabert2" else 5)
    without = {key: weight for key, weight in weights.items() if key not in tied}
    write_weights(folder, without)
    wanted = logits_of(folder)
    for form in ("safetensors", "bin"):
        write_weights(folder, without | {key: weights[first] for key, first in tied.items()}, form)
        assert torch.equal(logits_of(folder), wanted)
    for key, first in tied.items():
        # The second alone is enough.
        write_weights(folder, {(key if other == first else other): weight for other, weight in without.items()})
        assert torch.equal(logits_of(folder), wanted)
        write_weights(folder, without | {key: weights[first] + noise_like(weights[first])})
        encoder = open_encoder(folder)
        for load in (encoder.body, encoder.masked, lambda longest, encoder=encoder: encoder.classifier(2, longest)):
            with pytest.raises(InputError, match=rf"\A[^\n]+{key}[^\n]+ have different values; get it anew\Z"):
                load(LONGEST)


@pytest.mark.parametrize("kind", ["body", "masked", "classifier"])
def test_what_does_not_fit_is_refused_in_one_line(name, kind, copied):
    folder = copied(name)
    weights = read_weights(folder)
    inside = next(key for key in weights if ".1." in key and key.endswith("proj.weight" if "mixer" in key else "bias"))
    no_other = f"which no {FAMILIES[name]} model has"
    for changed, match in (
        ({inside: None}, "has no .*; choose a model that"),
        ({inside.replace(".1.", ".2."): weights[inside]}, f"{no_other}; get it anew"),
        ({"another.weight": torch.zeros(2)}, f"has another.weight, {no_other}"),
        ({inside: weights[inside][:-1]}, "has shape .* follows from config.json; get both anew"),
        ({inside: weights[inside][None]}, "has shape .* follows from config.json; get both anew"),
    ):
        write_weights(folder, {key: weight for key, weight in {**weights, **changed}.items() if weight is not None})
        load = getattr(open_encoder(folder), kind)
        with pytest.raises(InputError, match=rf"\A[^\n]*{match}[^\n]*\Z"):
            load(*((2, LONGEST) if kind == "classifier" else (LONGEST,)))


def test_a_model_is_known_by_its_configuration_alone(name, folder, copied):
    # Code that was loaded from a repository is named with it in what is saved.
    code = {key: f"someone/model--{one}" for key, one in read_json(folder / "config.json").get("auto_map", {}).items()}
    values = {"torch_dtype": "float16", "return_dict": False, "num_labels": 7}
    changes = [((), values | ({"auto_map": code} if code else {}))]
    changes += {
        # As an older copy on the Hub, and as the library saves it after its own BertConfig had read it.
        "dnabert2": [((), {"model_type": "bert", "architectures": ["BertForMaskedLM"]})],
        "ntv2-50m": [((), {"model_type": "esm"}), (("auto_map",), {"model_type": "esm"}), (("auto_map",), {})],
        "caduceus-ps": [(("auto_map",), {})],
        "nt-500m-1000g": [(("architectures", "is_folding_model"), {})],
    }.get(name, [])
    for dropped, values in changes:
        other = copied(name)
        change_config(other, *dropped, **values)
        assert open_encoder(other, trust_remote_code=True).family == FAMILIES[name]
        assert torch.equal(logits_of(other), logits_of(folder))
        assert open_encoder(other).classifier(2, LONGEST).num_labels == 2


def test_what_is_nearly_one_of_them_is_refused_and_not_taken_for_another(copied):
    folder = copied("ntv2-50m")
    change_config(folder, "add_bias_fnn")
    for model in (folder, f"random:{folder}"):
        with pytest.raises(InputError, match=r"\A[^\n]+ lacks add_bias_fnn[^\n]+get the published config.json\Z"):
            open_encoder(model)
    # By its configuration alone this is ESM, whose feed-forward blocks are of half the width; and the other a BERT.
    change_config(folder, "auto_map", model_type="esm", architectures=["EsmForMaskedLM"])
    other = copied("dnabert2")
    change_config(other, "auto_map", model_type="bert")
    esm, bert = open_encoder(folder), open_encoder(other)
    for load in (esm.body, esm.masked, lambda longest: esm.classifier(2, longest), bert.body):
        with pytest.raises(InputError, match=ONE_LINE):
            load(LONGEST)


def test_an_option_that_is_not_implemented_is_refused_by_name(name, folder, copied):
    required = open_encoder(folder).required
    assert len(required) == {"dnabert2": 3, "nt": 4, "ntv2": 5, "caduceus": 6}[FAMILIES[name]]
    for option, (value, *_) in required.items():
        changed = copied(name)
        wrong = not value if isinstance(value, bool) else "another"
        change_config(changed, **{option: wrong})
        with pytest.raises(InputError, match=rf"\A[^\n]* {option} {wrong!r}[^\n]*\Z"):
            open_encoder(changed)


def test_rotary_frequencies_outlive_saving(copied, tmp_path):
    folder = copied("ntv2-50m")
    weights = read_weights(folder)
    own = {key: weight.half().float() * 0.9 for key, weight in weights.items() if key.endswith("inv_freq")}
    assert own
    write_weights(folder, weights | own)
    encoder = open_encoder(folder)
    encoder.masked(LONGEST).save_pretrained(tmp_path / "saved")
    encoder.save_tokenizer(tmp_path / "saved", LONGEST)
    assert torch.equal(logits_of(tmp_path / "saved"), logits_of(folder))


@pytest.mark.parametrize(("name", "other"), [("nt-500m-1000g", "ntv2-50m"), ("ntv2-50m", "nt-500m-1000g")])
def test_a_tokenizer_of_another_vocabulary_is_refused(name, other, copied, peer_folders, examples_of):
    folder = copied(name)
    shutil.copy(peer_folders[other] / "vocab.txt", folder)
    with pytest.raises(InputError, match=r"\A[^\n]+ its tokenizer has [\d,]+ tokens and its weights are of [^\n]+\Z"):
        open_encoder(folder).inputs(examples_of(["ACGT"]))
    (folder / "vocab.txt").unlink()
    with pytest.raises(InputError, match=ONE_LINE):
        open_encoder(folder).inputs(examples_of(["ACGT"]))


def test_caduceus_reads_letters_whatever_files_lie_there(copied, examples_of):
    folder = copied("caduceus-ph")
    (folder / "tokenizer_config.json").unlink()
    encoder = open_encoder(folder)
    batch = all_rows(encoder, examples_of(["ACGTN", "TT"]))
    assert batch["input_ids"].tolist() == [[7, 8, 9, 10, 11], [10, 10, 4, 4, 4]]
    assert batch["attention_mask"].tolist() == [[1] * 5, [1, 1, 0, 0, 0]]
    with pytest.raises(ValueError, match="padding on the left"):
        encoder.body(20)(batch["input_ids"].flip(1), attention_mask=batch["attention_mask"].flip(1))


def test_a_fine_tuned_model_and_a_probe_are_loaded_whole(folder, tmp_path, examples_of, sequences):
    encoder = open_encoder(folder)
    model, body = encoder.classifier(3, LONGEST), encoder.body(LONGEST)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * noise_like(weight)
    weight, bias = torch.randn(3, body.config.hidden_size), torch.tensor([0.5, 0.0, -0.5])
    probed = ProbedClassifier(body, encoder.hidden_states, weight, bias)
    batch = all_rows(encoder, examples_of(sequences))
    for saved, target in ((model, tmp_path / "model"), (probed, tmp_path / "probe")):
        saved.save_pretrained(target)
        encoder.save_tokenizer(target, LONGEST)
        again = open_encoder(target)
        assert (again.family, again.special_tokens) == (encoder.family, encoder.special_tokens)
        loaded, each_token = again.trained_classifier()
        assert not each_token
        with torch.inference_mode():
            assert torch.equal(loaded(**all_rows(again, examples_of(sequences))).logits, saved(**batch).logits)
    again = open_encoder(tmp_path / "model")
    with torch.inference_mode():
        states = again.hidden_states(again.body(LONGEST), batch)
        assert torch.equal(states, encoder.hidden_states(model.base_model, batch))
        # The mean over tokens, one sequence at a time.
        for row, sequence in enumerate(sequences):
            states = encoder.hidden_states(body, all_rows(encoder, examples_of([sequence])))
            wanted = weight @ states[0].mean(0) + bias
            torch.testing.assert_close(probed(**batch).logits[row], wanted, atol=1e-4, rtol=0)
    with pytest.raises(InputError, match=ONE_LINE):
        encoder.trained_classifier()


PROGRAM = """\
import numpy as np, torch
from mutbert.encoders.adapter import open_encoder
from mutbert.encoders.inputs import PaddedWindows
from mutbert.encoders.known import MODELS, is_offline

torch.set_num_threads(1)
for model in filter(is_offline, MODELS):
    encoder = open_encoder(model.name)
    batch = encoder.inputs(PaddedWindows.of([np.array([0, 1, 2, 3, 0, 1, 2, 3], np.uint8)])).batch(np.arange(1))
    encoder.hidden_states(encoder.body(20), batch)
    print(model.name, encoder.family)
"""


def test_known_models_are_opened_by_name_without_a_network(tmp_path, peer_folders, model_folders):
    """From a cache as huggingface_hub fills it, in a process that has it for its own; one that lacks a file is not."""
    folder_of = {FAMILIES[name]: folder for name, folder in peer_folders.items()}
    folder_of["mutbert"] = model_folders["mutbert"]
    torn = {"mutbert-multi", "nt-2.5b-multi", "ntv2-100m"}
    for model in MODELS:
        here = tmp_path / f"models--{model.place.replace('/', '--')}"
        (here / "refs").mkdir(parents=True)
        (here / "refs" / "main").write_text("0123456789abcdef0123456789abcdef01234567")
        snapshot = here / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
        shutil.copytree(peer_folders.get(model.name, folder_of[model.family]), snapshot)
        if "2.5b" in model.name:
            # Large ones are in parts.
            write_weights(snapshot, read_weights(snapshot), "parts")
        if model.name in torn:
            files = [*snapshot.glob("*.safetensors"), *snapshot.glob("*.bin")]
            (snapshot / "vocab.txt" if "ntv2" in model.name else sorted(files)[-1]).unlink()
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    ended = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=True, capture_output=True, text=True)
    found = [tuple(line.split()) for line in ended.stdout.splitlines()]
    assert found == [(one.name, one.family) for one in MODELS if one.name not in torn]
