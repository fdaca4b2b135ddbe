"""The recorded weights of attention beside transformers' output_attentions."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from minillm import models, record_attention  # noqa: E402
from tests.parity.test_pretrained import CLASSES, CONFIGS, IDS, START  # noqa: E402


@pytest.mark.parametrize("name", ["gpt2", "llama", "llama 1 kv head, tied", "t5", "t5 v1.1"])
def test_transformers_sees_the_same_weights(name, tmp_path):
    torch.manual_seed(0)
    theirs = CLASSES[CONFIGS[name].model_type](CONFIGS[name]).eval()
    theirs.set_attn_implementation("eager")
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(0.0, 0.3)
    theirs.save_pretrained(tmp_path)
    ours = models.from_pretrained(tmp_path)
    inputs = {"input_ids": torch.tensor(IDS)}
    if ours.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.tensor(START)
    with torch.no_grad():
        told = theirs(**inputs, output_attentions=True)
    with record_attention(ours) as weights:
        ours(*([IDS, START] if ours.is_encoder_decoder else [IDS]))
    if ours.is_encoder_decoder:
        parts = {"encoder": told.encoder_attentions, "decoder": told.decoder_attentions}
        expected = {f"{p}.block.{i}.layer.0.SelfAttention": w for p, ws in parts.items() for i, w in enumerate(ws)}
        cross = enumerate(told.cross_attentions)
        expected |= {f"decoder.block.{i}.layer.1.EncDecAttention": w for i, w in cross}
    else:
        where = "transformer.h.{}.attn" if name == "gpt2" else "model.layers.{}.self_attn"
        expected = {where.format(i): w for i, w in enumerate(told.attentions)}
    assert set(weights) == set(expected)
    for layer, theirs_here in expected.items():
        assert weights[layer].std() > 0.02  # it looks somewhere
        np.testing.assert_allclose(weights[layer], theirs_here.numpy(), rtol=0, atol=1e-6)
