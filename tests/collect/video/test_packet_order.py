"""What packets say of their order, by hand; `test_untruths` compares it with decoding."""

from collect.video.packet_order import _order_by_kind, is_reference, is_shown, is_timed, nal_units


def test_b_pictures_are_shown_at_once_and_others_after_them() -> None:
    # Decoded I P B B P B: shown I B B P B P.
    assert _order_by_kind([False, False, True, True, False, True]).tolist() == [0, 3, 1, 2, 5, 4]


def test_hidden_pictures_of_vp8_and_vp9() -> None:
    assert is_shown("vp8", b"\x10") is True
    assert is_shown("vp8", b"\x00") is False
    # Marker 2, profile 0, no existing frame, key frame 0, then show_frame.
    assert is_shown("vp9", b"\x82\x00") is True
    assert is_shown("vp9", b"\x80\x00") is False
    assert is_shown("vp9", b"\x88\x00") is True  # shows a frame that is there
    assert is_shown("vp9", b"\x80\xc0") is True  # a superframe
    assert is_shown("vp9", b"\x00\x00") is None


def test_units_are_found_by_length_and_by_start_code() -> None:
    extradata = bytes([1, 100, 0, 10, 0xFF, 0xE1, 0, 0])  # lengths of four bytes
    assert [unit[0] for unit in nal_units(extradata, "h264", b"\0\0\0\2\x06\x01\0\0\0\3\x65\x88\x80")] == [6, 0x65]
    assert [unit[0] for unit in nal_units(None, "h264", b"\0\0\0\1\x06\x01\0\0\1\x65\x88\x80")] == [6, 0x65]
    assert list(nal_units(extradata, "h264", bytes(40))) == []


def test_pictures_that_nothing_refers_to() -> None:
    assert not is_reference("h264", None, b"\0\0\1\x01\x9a\0")  # nal_ref_idc 0
    assert is_reference("h264", None, b"\0\0\1\x41\x9a\0")
    assert not is_reference("mpeg4", None, b"\0\0\1\xb6\x80\0")  # coding type 2
    assert is_reference("hevc", None, b"")


def test_only_containers_that_state_times_prove_anything() -> None:
    assert is_timed("mov,mp4,m4a,3gp,3g2,mj2")
    assert is_timed("matroska,webm")
    assert not is_timed("avi")
