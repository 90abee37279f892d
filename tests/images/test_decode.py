"""Files of images to pictures: what is shown of each kind, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import chunk, data_url, hostile, noise, png, stored
from PIL import Image

from jaxserve.errors import InvalidRequest
from jaxserve.images.data_url import read_data_url
from jaxserve.images.decode import decode

MOST = 80_000_000


def pixels(data: bytes) -> np.ndarray:
    picture = decode(data, "images.0", MOST)
    return np.frombuffer(picture.rgb, np.uint8).reshape(picture.height, picture.width, 3)


@pytest.mark.parametrize(
    ("kind", "more", "off"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("PPM", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("JPEG", {"quality": 98, "subsampling": 0}, 6),
    ],
)
def test_kinds(kind: str, more: dict[str, object], off: int) -> None:
    image = noise(3).resize((48, 32), Image.Resampling.BICUBIC)
    found = pixels(stored(image, kind, **more)).astype(int)
    assert np.abs(found - np.asarray(image)).max() <= off


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_the_first_of_several_frames_is_shown(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    more = {"lossless": True} if kind == "WEBP" else {}
    assert (pixels(stored(frames[0], kind, save_all=True, append_images=frames[1:], **more)) == [255, 0, 0]).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(kind: str, orientation: int) -> None:
    upright = Image.new("RGB", (24, 16), "white")
    upright.paste("black", (0, 0, 12, 8))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's numbers of what a camera so turned has done
    stored_as = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = pixels(stored(stored_as, kind, exif=exif))
    assert found.shape == (16, 24, 3)
    assert np.abs(found[2:6, 2:10].astype(int)).max() < 40
    assert found[10:, 14:].min() > 215


def test_damaged_exif_harms_nothing() -> None:
    assert pixels(stored(noise(4), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")).shape == (16, 24, 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_lies_over_white(mode: str) -> None:
    image = Image.new("LA", (2, 1))
    image.putdata([(0, 0), (0, 128)])
    found = pixels(stored(image.convert(mode), "PNG"))
    assert found[0].tolist() == [[255] * 3, [127] * 3]


def test_palettes_and_their_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.putdata([0, 1])
    assert pixels(stored(image, "PNG"))[0].tolist() == [[10, 20, 30], [200, 100, 0]]
    assert pixels(stored(image, "PNG", transparency=1))[0].tolist() == [[10, 20, 30], [255] * 3]
    assert pixels(stored(image, "GIF", transparency=0))[0].tolist() == [[255] * 3, [200, 100, 0]]
    one = Image.new("RGB", (1, 1), (9, 8, 7))
    assert pixels(stored(one, "PNG", transparency=(9, 8, 7)))[0].tolist() == [[255] * 3]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_keep_their_upper_8(kind: str) -> None:
    levels = np.array([[0, 255, 256, 0x8000, 0xFFFF]], np.uint16)
    found = pixels(stored(Image.fromarray(levels), kind))
    assert found[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    assert (found[..., :1] == found).all()


def test_cmyk_and_one_bit() -> None:
    assert pixels(stored(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF"))[0, 0].tolist() == [255, 0, 0]
    near = pixels(stored(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))[0, 0].astype(int)
    assert np.abs(near - [255, 0, 0]).max() < 8
    assert pixels(stored(Image.new("1", (8, 8), 1), "PNG")).min() == 255


HOSTILE = hostile()


def test_sixty_hostile_files() -> None:
    assert len(HOSTILE) >= 60


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"\Aimages\.7: .{10,120}\Z") as refused:
        decode(HOSTILE[name], "images.7", 1_000_000)
    assert refused.value.field == "images.7"
    assert "\n" not in refused.value.message


def test_sizes_are_checked_before_pixels_are_decoded() -> None:
    damaged = png(2000, 600, chunk(b"IDAT", b"no zlib stream"))
    with pytest.raises(InvalidRequest, match="may have 1000000"):
        decode(damaged, "images.0", 1_000_000)
    with pytest.raises(InvalidRequest, match="damaged"):
        decode(damaged, "images.0", 1_200_000)


def test_data_urls() -> None:
    data = stored(noise(5), "PNG")
    plain = data_url(data)
    head, _, code = plain.partition(",")
    for url in (
        plain,
        data_url(data, "image/jpeg"),
        data_url(data, "IMAGE/PNG;name=a.png"),
        plain.rstrip("="),
        f"{head},\n" + "\n".join(code[at : at + 76] for at in range(0, len(code), 76)),
        f"{head}," + code.replace("+", "%2B").replace("/", "%2F"),
        data_url(data, ""),
    ):
        assert read_data_url(url, "x") == data, url[:40]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://example.com/a.png", r"http\(s\)"),
        ("HTTPS://127.0.0.1/", r"http\(s\)"),
        ("file:///etc/passwd", "no URL"),
        ("/etc/passwd", "no URL"),
        ("", "no URL"),
        ("data:image/png,abc", "without base64"),
        ("data:text/html;base64,AAAA", "text/html"),
        ("data:image/svg+xml;base64,A", "not valid base64"),
        ("data:image/png;base64,é", "not valid base64"),
        ("data:image/png;base64,A*AA", "not valid base64"),
    ],
)
def test_other_urls_are_refused(url: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        read_data_url(url, "messages.0.content.1.image_url")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tiff of a huge tile", "too many pixels"),
        ("jpeg of many scans", "fewer scans"),
        ("jpeg of many small scans", "fewer scans"),
    ],
)
def test_work_is_bounded_before_it_is_done(name: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        decode(HOSTILE[name], "images.0", MOST)


def test_progressive_jpegs_are_read() -> None:
    assert pixels(stored(noise(3), "JPEG", progressive=True)).shape == (16, 24, 3)
