# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Every picture is read whatever it is called, and what is left out is counted and named."""

from __future__ import annotations

import builtins
import shutil
import sys

import cv2
import numpy as np
import PIL.Image
import pytest

from road_anomaly_ros.tools import encodings, pictures
from road_anomaly_ros.tools.encodings import ImageRefused, decode_file
from road_anomaly_ros.tools.sources import open_source

SIZE = (48, 64)


def scene():
    """Flat colours: what a lossy format keeps."""
    picture = np.full((*SIZE, 3), (30, 120, 200), np.uint8)
    picture[:, :32] = (200, 60, 40)
    return picture


def save(path, layout, **options):
    PIL.Image.fromarray(scene()).save(path, layout, **options)
    return path


@pytest.mark.parametrize(
    'layout', ['JPEG', 'PNG', 'BMP', 'GIF', 'TIFF', 'WEBP', 'PPM', 'JPEG2000', 'AVIF', 'HEIF']
)
@pytest.mark.parametrize('name', ['shot', 'shot.JPG', 'shot.data', 'a.b.c'])
def test_every_format_is_told_by_its_content(tmp_path, layout, name):
    if layout == 'HEIF':
        pytest.importorskip('pillow_heif', reason='needs the extra heif').register_heif_opener()
    if layout == 'AVIF' and 'AVIF' not in PIL.Image.OPEN:
        pytest.skip('this Pillow cannot write AVIF')
    path = save(tmp_path / name, layout)
    source = open_source(path)
    [frame] = source
    assert source.kind == 'image'
    away_from_the_edge = np.r_[0:24, 40:64]
    np.testing.assert_allclose(
        frame.image[:, away_from_the_edge].astype(int), scene()[:, away_from_the_edge], atol=12
    )
    folder = open_source(tmp_path)
    assert [frame.name for frame in folder] == [name] and not folder.refused


def test_a_folder_counts_and_names_all_that_it_leaves_out(tmp_path):
    save(tmp_path / 'a.png', 'PNG')
    save(tmp_path / 'b', 'JPEG')
    (tmp_path / 'c.webp').write_bytes(b'RIFF')
    (tmp_path / 'notes.txt').write_text('no picture')
    (tmp_path / 'raw.dng').write_bytes(b'II*\0' + bytes(60))
    (tmp_path / 'inner').mkdir()
    (tmp_path / '.hidden.png').write_bytes(b'')
    source = open_source(tmp_path)
    assert [frame.name for frame in source] == ['a.png', 'b']
    assert source.count == 3
    assert source.refused == {'no picture': 1, 'camera raw': 1, 'folder': 1, 'undecodable': 1}
    assert source.left_out == {
        'no picture': ['notes.txt'],
        'camera raw': ['raw.dng'],
        'folder': ['inner'],
        'undecodable': ['c.webp'],
    }


def test_a_folder_without_pictures_says_what_is_there(tmp_path):
    (tmp_path / 'notes.txt').write_text('no picture')
    with pytest.raises(ValueError, match=r'none among 1 files \(notes\.txt\)'):
        open_source(tmp_path)


def test_a_raw_file_is_not_taken_for_its_thumbnail(tmp_path):
    save(tmp_path / 'shot.dng', 'TIFF')
    with pytest.raises(ValueError, match='camera raw'):
        open_source(tmp_path / 'shot.dng')


def test_a_video_that_is_called_a_picture_is_a_video(tmp_path):
    writer = cv2.VideoWriter(
        str(tmp_path / 'clip.mp4'), cv2.VideoWriter_fourcc(*'mp4v'), 10, SIZE[::-1]
    )
    for _ in range(3):
        writer.write(scene())
    writer.release()
    shutil.move(tmp_path / 'clip.mp4', tmp_path / 'clip.jpg')
    source = open_source(tmp_path / 'clip.jpg')
    assert source.kind == 'video' and len(list(source)) == 3


HEIC = (b'\0\0\0\x18ftypheic\0\0\0\0mif1heic', b'\0\0\0\x18ftypmif1\0\0\0\0mif1heic')


@pytest.mark.parametrize('head', HEIC)
def test_heic_without_its_reader_names_the_remedy(monkeypatch, tmp_path, head):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name == 'pillow_heif':
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, '__import__', without)
    monkeypatch.delitem(sys.modules, 'pillow_heif', raising=False)
    monkeypatch.delitem(PIL.Image.OPEN, 'HEIF', raising=False)
    encodings._heif_reader.cache_clear()
    with pytest.raises(ImageRefused, match=r"pip install 'road_anomaly_ros\[heif\]'") as caught:
        decode_file(head + bytes(99))
    assert caught.value.reason == 'HEIF without a reader'
    (tmp_path / 'IMG_0001.HEIC').write_bytes(head + bytes(99))
    save(tmp_path / 'a.png', 'PNG')
    source = open_source(tmp_path)
    assert len(list(source)) == 1
    assert source.left_out == {'HEIF without a reader': ['IMG_0001.HEIC']}
    encodings._heif_reader.cache_clear()


@pytest.mark.parametrize(
    ('head', 'expected'),
    [
        (b'\0\0\0\x18ftypavif\0\0\0\0mif1miaf', 'AVIF'),
        (b'\0\0\0\x18ftypmif1\0\0\0\0avifmiaf', 'AVIF'),
        (HEIC[0], 'HEIF'),
        (HEIC[1], 'HEIF'),
        (b'\0\0\0\x18ftypisom\0\0\0\0mp41avc1', ''),
        (b'\0\0\0\x18ftypqt  \0\0\0\0qt  qt  ', ''),
        (b'', ''),
    ],
)
def test_containers_by_their_brands(head, expected):
    assert pictures.container(head) == expected


def test_orientation_is_followed_or_left_alone(tmp_path):
    exif = PIL.Image.Exif()
    exif[274] = 6  # turn by 90 degrees
    for layout in ('JPEG', 'WEBP', 'AVIF'):
        if layout in PIL.Image.SAVE:
            raw = save(tmp_path / 'turned', layout, exif=exif).read_bytes()
            assert decode_file(raw).shape == (64, 48, 3), layout
            assert decode_file(raw, upright=False).shape == (48, 64, 3), layout


def test_sixteen_bit_pictures_of_pillows_formats_are_scaled(tmp_path):
    grey = np.full(SIZE, 90 * 257, np.uint16)
    PIL.Image.fromarray(grey).save(tmp_path / 'deep.jp2', 'JPEG2000')
    raw = (tmp_path / 'deep.jp2').read_bytes()
    np.testing.assert_array_equal(encodings._with_pillow(raw, True), np.full((*SIZE, 3), 90))


def test_the_first_names_of_a_long_list():
    assert pictures.some('abcdefg') == 'a, b, c, d, e and 2 more'
