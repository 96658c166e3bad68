"""Cases of the model: logits, losses, gradients and classifiers of stored weights, and the tokenizer."""

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from golden_answers import Answer

import mutbert
from mutbert import alphabet


def arrays_of(**tensors: Any) -> Answer:
    return {name: tensor.detach().float().numpy() for name, tensor in tensors.items()}


def random_ids(seed: int, batch: int, length: int) -> torch.Tensor:
    """Draw ids of tokens: [CLS], bases with some [MASK] and [UNK], [SEP]."""
    rng = random.Random(seed)
    rows = [[1, *rng.choices([5, 6, 7, 8, 4, 0], [5, 5, 5, 5, 2, 1], k=length - 2), 2] for _ in range(batch)]
    return torch.tensor(rows)


def random_probs(seed: int, batch: int, length: int, columns: int) -> torch.Tensor:
    """Draw distributions over tokens; half of the rows are of one token alone."""
    rng = random.Random(seed)
    rows = []
    for _ in range(batch * length):
        if rng.random() < 0.5:
            weights = torch.eye(columns)[rng.randrange(columns)].tolist()
        else:
            weights = [rng.random() ** 3 for _ in range(columns)]
        rows.append([weight / sum(weights) for weight in weights])
    return torch.tensor(rows, dtype=torch.float32).reshape(batch, length, columns)


def load(kind: Any, folder: str = "model", **settings: Any) -> Any:
    return kind.from_pretrained(folder, **settings).eval()


def of_ids(attention: str) -> Answer:
    model = load(mutbert.MutBertForMaskedLM, attn_implementation=attention)
    found = model(input_ids=random_ids(1, 2, 24), output_hidden_states=True)
    types = torch.tensor([[0] * 10 + [1] * 14] * 2)
    typed = model(input_ids=random_ids(1, 2, 24), token_type_ids=types)
    return arrays_of(logits=found.logits, hidden_states=torch.stack(found.hidden_states)[..., ::3], typed=typed.logits)


def of_attentions() -> Answer:
    model = load(mutbert.MutBertForMaskedLM, attn_implementation="eager")
    found = model(input_ids=random_ids(1, 1, 12), output_attentions=True)
    return arrays_of(attentions=torch.stack(found.attentions))


def of_probabilities(attention: str) -> Answer:
    model = load(mutbert.MutBertForMaskedLM, attn_implementation=attention)
    tokens, bases = random_probs(2, 2, 20, 9), random_probs(3, 2, 20, 4)
    published = model(input_ids=tokens).logits
    assert torch.equal(published, model(input_probs=tokens).logits), "distributions as input_ids are others"
    embedded = model(inputs_embeds=torch.nn.functional.pad(bases, (0, 12)))
    return arrays_of(tokens=published, bases=model(input_probs=bases).logits, embedded=embedded.logits)


def of_padding(attention: str, scaling: str) -> Answer:
    """Rows of three lengths, two of them longer than trained; alone and together, they are the same."""
    model = load(
        mutbert.MutBertForMaskedLM, attn_implementation=attention,
        rope_scaling=None if scaling == "none" else {"type": scaling, "factor": 2.0},
    )  # fmt: skip
    lengths = (17, 64, 70, 100)
    ids = random_ids(4, len(lengths), max(lengths))
    mask = torch.tensor([[1] * length + [0] * (max(lengths) - length) for length in lengths])
    ids[mask == 0] = alphabet.PAD_ID
    logits = model(input_ids=ids, attention_mask=mask).logits
    for row, length in enumerate(lengths):
        alone = model(input_ids=ids[row : row + 1, :length]).logits[0]
        assert torch.allclose(alone, logits[row, :length], atol=1e-5, rtol=1e-5), f"padding changes row {row}"
    return arrays_of(logits=logits[mask.bool()][::4])


def of_losses() -> Answer:
    """Losses of both kinds of labels, in evaluation and in training, and the gradient of each weight."""
    model = load(mutbert.MutBertForMaskedLM)
    ids = random_ids(8, 3, 30)
    probs, answers = random_probs(9, 3, 30, 9), random_probs(10, 3, 30, 9)
    rng = random.Random(33)
    target = torch.tensor([[rng.random() < 0.2 for _ in range(30)] for _ in range(3)])
    weights = torch.tensor([[rng.random() for _ in range(30)] for _ in range(3)])
    labels = torch.where(target, random_ids(11, 3, 30), torch.tensor(-100))

    def soft_loss(weight: torch.Tensor | None = None) -> torch.Tensor:
        """The mean over all targets, of which rows have different numbers."""
        losses = []
        for row in range(len(target)):
            places = target[row].nonzero().T
            given = {"labels": answers[row][places], "target_places": places}
            if weight is not None:
                given["target_weights"] = weight[row][places]
            losses.append(model(input_probs=probs[row : row + 1], **given).loss * places.numel())
        return torch.stack(losses).sum() / target.sum()

    found = {}
    for mode in ("evaluation", "training"):
        model.train(mode == "training")
        found[mode] = {"ids": model(input_ids=ids, labels=labels).loss.item(),
                       "distributions": soft_loss().item(), "weighted": soft_loss(weights).item()}  # fmt: skip
    model.zero_grad()
    soft_loss(weights).backward()
    gradients = {name: [one.grad.norm().item(), one.grad.sum().item()] for name, one in model.named_parameters()}
    return {**found, "gradients": gradients}


def of_classifiers() -> Answer:
    ids = random_ids(12, 3, 40)
    mask = torch.tensor([[1] * 40, [1] * 33 + [0] * 7, [1] * 12 + [0] * 28])
    ids[mask == 0] = alphabet.PAD_ID
    labels = torch.tensor([0, 1, 1])
    kind = mutbert.MutBertForSequenceClassification
    means, first = load(kind, "classifier"), load(kind, "first_token_classifier")
    tokens = load(mutbert.MutBertForTokenClassification, "token_classifier")
    body = load(mutbert.MutBertModel, "first_token_classifier")(input_ids=ids, attention_mask=mask)
    mean_body = load(mutbert.MutBertModel)(input_ids=ids, attention_mask=mask)
    by_base = torch.where(mask.bool(), torch.arange(40) % 3, torch.tensor(-100))
    named = {"input_ids": ids, "attention_mask": mask}
    arrays = arrays_of(
        means=means(**named).logits, first=first(**named).logits, tokens=tokens(**named).logits[mask.bool()],
        pooled=body.pooler_output, mean_pooled=mean_body.pooler_output,
        last=mean_body.last_hidden_state[mask.bool()][::4],
        probabilities=means(input_probs=random_probs(13, 2, 20, 4)).logits,
    )  # fmt: skip
    losses = [model(**named, labels=one) for model, one in ((means, labels), (first, labels), (tokens, by_base))]
    return {**arrays, "losses": [one.loss.item() for one in losses]}


def of_tokenizer() -> Answer:
    found: Answer = {}
    texts = ["ACGT", "acgtNRYU", "", "AC[MASK]GT", "A"]
    for name, settings in (("ours", {}), ("published", {"do_upper_case": False})):
        tokenizer = mutbert.MutBertTokenizer(**settings)
        batch = tokenizer(texts, padding=True)
        pair = tokenizer("ACG", "TTA")
        found[name] = {
            **{key: batch[key] for key in ("input_ids", "attention_mask", "token_type_ids")},
            "pair": [pair["input_ids"], pair["token_type_ids"]],
        }
    batch = mutbert.MutBertTokenizer().encode_probabilities(["ACGTRYSWKMBDHVN", "acgun", "G"])
    found["probabilities"] = batch["input_probs"].numpy()
    found["mask"] = batch["attention_mask"].tolist()
    return found


CASES: dict[str, Callable[[], Answer]] = {
    "model/ids": partial(of_ids, "sdpa"),
    "model/ids/eager": partial(of_ids, "eager"),
    "model/probabilities": partial(of_probabilities, "sdpa"),
    "model/probabilities/eager": partial(of_probabilities, "eager"),
    **{f"model/rope_{scaling}": partial(of_padding, "sdpa", scaling) for scaling in ("none", "linear", "dynamic")},
    "model/rope_dynamic/eager": partial(of_padding, "eager", "dynamic"),
    "model/attentions": of_attentions,
    "model/losses": of_losses,
    "model/classifiers": of_classifiers,
    "model/tokenizer": of_tokenizer,
}
