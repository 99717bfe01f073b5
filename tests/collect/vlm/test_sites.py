import pytest
import torch
from torch import Tensor, nn

from collect.errors import UserError
from collect.vlm.sites import (
    Point,
    Site,
    parse_site,
    read_points,
    read_sites,
    resume,
    site_names,
    stop_at,
    without_first_layers,
)


class Constant(nn.Module):
    """Returns a number whatever it is given, as attention modules do: first in a tuple."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, None]:
        return torch.full_like(hidden_states, self.value), None


class Layer(nn.Module):
    """Adds its number plus one: a quarter by its attention, the rest by its MLP."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.self_attn = Constant((number + 1) / 4)
        self.mlp = Constant(3 * (number + 1) / 4)

    def forward(self, hidden_states: Tensor) -> Tensor:
        hidden_states = hidden_states + self.self_attn(hidden_states)[0]
        return hidden_states + self.mlp(hidden_states)[0]


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
    names = site_names(2, 1)
    assert names == (
        "vision/0",
        "projector",
        *("resid_pre/0", "attn_out/0", "mlp_out/0", "resid/0"),
        *("resid_pre/1", "attn_out/1", "mlp_out/1", "resid/1"),
    )
    sites = [parse_site(name, 2, 1) for name in names]
    assert [site.name for site in sites] == list(names)
    assert sorted(sites, key=lambda site: site.order) == sites


def test_layers_before_a_site() -> None:
    names = ("vision/0", "projector", "resid_pre/0", "resid/0", "resid_pre/1", "resid/1")
    assert [parse_site(name, 2, 1).layers_before for name in names] == [0, 0, 0, 1, 1, 2]


def test_only_some_sites_hold_the_whole_residual_stream() -> None:
    assert [name for name in site_names(1, 1) if parse_site(name, 1, 1).is_residual] == [
        "projector",
        "resid_pre/0",
        "resid/0",
    ]


@pytest.mark.parametrize(
    "name", ["resid/2", "resid_pre/2", "attn_out/2", "resid/-1", "resid/01", "resid", "projector/0", "mlp/0", ""]
)
def test_a_site_that_is_not_there(name: str) -> None:
    with pytest.raises(UserError, match=r"choose `projector`, or `resid_pre/i` or `resid/i` .* with i from 0 to 1"):
        parse_site(name, 2)


def test_a_layer_of_the_tower_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"no site 'vision/1' .* or `vision/i` with i from 0 to 0"):
        parse_site("vision/1", 2, 1)


def test_hidden_states_at_each_site() -> None:
    # Layers add 1, 2 and 3: 0, then 0 + 1, then 1 + 2, then 3 + 3; a quarter of it by the attention.
    decoder = Decoder()
    found = stop_at(decoder, [parse_site(name, 3) for name in site_names(3)], ZERO)
    assert {name: hidden.item() for name, hidden in found.items()} == {
        "projector": 0,
        "resid_pre/0": 0,
        "attn_out/0": 0.25,
        "mlp_out/0": 0.75,
        "resid/0": 1,
        "resid_pre/1": 1,
        "attn_out/1": 0.5,
        "mlp_out/1": 1.5,
        "resid/1": 3,
        "resid_pre/2": 3,
        "attn_out/2": 0.75,
        "mlp_out/2": 2.25,
        "resid/2": 6,
    }


def test_sites_come_in_the_order_asked() -> None:
    sites = [parse_site(name, 3) for name in ("resid/1", "projector", "resid/0")]
    assert list(stop_at(Decoder(), sites, ZERO)) == ["resid/1", "projector", "resid/0"]


def test_two_names_of_one_place() -> None:
    sites = [parse_site(name, 3) for name in ("projector", "resid_pre/0")]
    assert list(stop_at(Decoder(), sites, ZERO)) == ["projector", "resid_pre/0"]


def test_a_pass_goes_on_where_it_is_not_to_stop() -> None:
    decoder = Decoder()
    with read_points([Point(name="first", module=decoder.layers[0])], stop=False) as found:
        output = decoder(inputs_embeds=ZERO, use_cache=False)
    assert found["first"].item() == 1
    assert output.last_hidden_state.item() == 12


@pytest.mark.parametrize("name", [name for name in site_names(3) if parse_site(name, 3).is_residual])
def test_resume_gives_what_the_whole_run_gives(name: str) -> None:
    # The whole run gives 2 (0 + 1 + 2 + 3) = 12.
    decoder, site = Decoder(), parse_site(name, 3)
    assert resume(decoder, site, stop_at(decoder, [site], ZERO)[name]).item() == 12


def test_decoder_is_as_before_after_reading_and_resuming() -> None:
    decoder = Decoder()
    layers = decoder.layers
    stop_at(decoder, [Site(kind="resid", layer=1), Site(kind="mlp_out", layer=0)], ZERO)
    with pytest.raises(RuntimeError, match="inside"), without_first_layers(decoder, 2):
        raise RuntimeError("inside")
    assert decoder.layers is layers
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in layers.modules())
    assert decoder(inputs_embeds=ZERO, use_cache=False).last_hidden_state.item() == 12


def test_a_layer_whose_parts_are_unknown() -> None:
    decoder = Decoder()
    decoder.layers[0] = nn.Identity()
    with pytest.raises(UserError, match="no self_attn or attention: collect `resid_pre/i`"):
        stop_at(decoder, [Site(kind="attn_out", layer=0)], ZERO)


def test_errors_of_the_model_pass_through() -> None:
    with pytest.raises(ZeroDivisionError), read_sites(Decoder(), [Site(kind="resid", layer=0)]):
        raise ZeroDivisionError
