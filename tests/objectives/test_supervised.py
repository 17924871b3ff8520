import numpy as np
import torch
from scipy.special import expit

from xkd.objectives.supervised import Supervised
from xkd.objectives.term import Outputs, RunSizes

SIZES = RunSizes(("video",), width=5, logits=8, classes=4)


def test_loss_of_several_labels_is_binary_cross_entropy_of_each_class():
    generator = torch.Generator().manual_seed(0)
    term = Supervised(None, SIZES)
    torch.nn.init.normal_(term.classifiers["video"].weight, generator=generator)
    features = torch.randn(6, 5, generator=generator)
    has = (torch.rand(6, 4, generator=generator) < 0.5).float()
    loss = term(Outputs(features_BD={"video": features}, labels_B=has)).losses["cross_entropy_video"]
    chance = expit(features.numpy() @ term.classifiers["video"].weight.detach().numpy().T)
    expected = -np.where(has.numpy() == 1, np.log(chance), np.log(1 - chance)).mean()
    np.testing.assert_allclose(loss.item(), expected, rtol=1e-5)
