import pytest
import torch
from torch import Tensor, nn

from collect.errors import UserError
from collect.sites import Site, parse_site, read_sites, resume, site_names, stop_at, without_first_layers


class Layer(nn.Module):
    """Adds its number plus one."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def forward(self, hidden_states: Tensor) -> Tensor:
        return hidden_states + self.number + 1


class Output:
    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden


class Decoder(nn.Module):
    """Three layers that add 1, 2 and 3; the final norm doubles."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(i) for i in range(3)])

    def forward(self, inputs_embeds: Tensor, use_cache: bool) -> Output:
        assert not use_cache
        for layer in self.layers:
            inputs_embeds = layer(inputs_embeds)
        return Output(2 * inputs_embeds)


ZERO = torch.zeros(1, 1, 1)


def test_names_round_trip() -> None:
    names = site_names(2)
    assert names == ("projector", "resid_pre/0", "resid/0", "resid_pre/1", "resid/1")
    assert [parse_site(name, 2).name for name in names] == list(names)


def test_layers_before_a_site() -> None:
    assert [parse_site(name, 2).layers_before for name in site_names(2)] == [0, 0, 1, 1, 2]


@pytest.mark.parametrize(
    "name", ["resid/2", "resid_pre/2", "resid/-1", "resid/01", "resid", "projector/0", "mlp/0", ""]
)
def test_a_site_that_is_not_there(name: str) -> None:
    with pytest.raises(UserError, match="choose `projector`, or `resid_pre/i` or `resid/i` with i from 0 to 1"):
        parse_site(name, 2)


def test_residuals_at_each_site() -> None:
    # Layers add 1, 2 and 3: 0, then 0 + 1, then 1 + 2, then 3 + 3.
    decoder = Decoder()
    found = stop_at(decoder, [parse_site(name, 3) for name in site_names(3)], ZERO)
    assert {name: hidden.item() for name, hidden in found.items()} == {
        "projector": 0,
        "resid_pre/0": 0,
        "resid/0": 1,
        "resid_pre/1": 1,
        "resid/1": 3,
        "resid_pre/2": 3,
        "resid/2": 6,
    }


def test_sites_come_in_the_order_asked() -> None:
    sites = [parse_site(name, 3) for name in ("resid/1", "projector", "resid/0")]
    assert list(stop_at(Decoder(), sites, ZERO)) == ["resid/1", "projector", "resid/0"]


@pytest.mark.parametrize("name", site_names(3))
def test_resume_gives_what_the_whole_run_gives(name: str) -> None:
    # The whole run gives 2 (0 + 1 + 2 + 3) = 12.
    decoder, site = Decoder(), parse_site(name, 3)
    assert resume(decoder, site, stop_at(decoder, [site], ZERO)[name]).item() == 12


def test_decoder_is_as_before_after_reading_and_resuming() -> None:
    decoder = Decoder()
    layers = decoder.layers
    stop_at(decoder, [Site(kind="resid", layer=1)], ZERO)
    with pytest.raises(RuntimeError, match="inside"), without_first_layers(decoder, 2):
        raise RuntimeError("inside")
    assert decoder.layers is layers
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers)
    assert decoder(inputs_embeds=ZERO, use_cache=False).last_hidden_state.item() == 12


def test_errors_of_the_model_pass_through() -> None:
    with pytest.raises(ZeroDivisionError), read_sites(Decoder(), [Site(kind="resid", layer=0)]):
        raise ZeroDivisionError
