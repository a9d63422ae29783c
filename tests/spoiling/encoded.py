"""What can become of an image in a TSV: its base64 and what that holds."""

import base64
import io
import struct
import zlib

from PIL import Image


def images_of(line):
    """The id and the image of a line."""
    token, _, encoded = line.partition(b"\t")
    return token, base64.b64decode(encoded)


def line_of(token, data):
    return token + b"\t" + base64.b64encode(data)


def saved(data, kind, mode="RGB", size=None, **options):
    """The same image as a file of another kind, mode or size."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    image = image.resize(size) if size else image
    buffer = io.BytesIO()
    image.convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def png_of(width, height):
    """The beginning of a PNG that says how large it is, and has no pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def no_base64(line, random):
    """A line whose base64 is none."""
    token, _, encoded = line.partition(b"\t")
    place = random.randrange(1, len(encoded) - 4)
    return random.choice(
        [
            token + b"\tdata:image/jpeg;base64," + encoded,
            token + b"\t" + encoded[:place] + random.choice([b"!", b".", b" ", b"%", b"\\", b"*"]) + encoded[place:],
            token + b'\t"' + encoded + b'"',
            token + b"\tb'" + encoded + b"'",
            token + b"\t" + encoded[:place] + b"\xef\xbc\x8b" + encoded[place:],
            token + b"\t" + encoded[:place] + b"\\n" + encoded[place:],
            token + b"\t" + encoded.rstrip(b"=")[: len(encoded.rstrip(b"=")) // 4 * 4] + b"A",
            token + b"\t\xe7\xba\xa2\xe8\x89\xb2",
        ]
    )


def no_image(line, random):
    """A line whose base64 holds no image, or less than one."""
    token, data = images_of(line)
    half = random.randrange(len(data) // 4, 3 * len(data) // 4)
    return line_of(
        token,
        random.choice(
            [
                b"",
                b"hello",
                b"\0" * 200,
                data[:half],
                data[:8],
                data[8:],
                b"\xff\xd8\xff" + random.randbytes(300),
                b"\x89PNG\r\n\x1a\n" + random.randbytes(300),
                b"GIF89a" + bytes(20),
                b"RIFF\x10\x00\x00\x00WEBPVP8 " + bytes(4),
                b"BM" + bytes(60),
                png_of(1 << 31 - 1, 1 << 31 - 1),
                png_of(100_000, 100_000),
                png_of(0, 5),
                png_of(32, 32),
                base64.b64encode(data),  # encoded twice
                b"<svg xmlns='http://www.w3.org/2000/svg'/>",
                b"%PDF-1.4\n",
                b"PK\x03\x04" + bytes(30),
            ]
        ),
    )


def other_base64(line, random):
    """Another spelling of the same image."""
    token, _, encoded = line.partition(b"\t")
    return random.choice(
        [
            line.replace(b"+", b"-").replace(b"/", b"_"),
            line.rstrip(b"="),
            token + b"\t  " + encoded + b" ",
            token + b"\t" + encoded + b"\r",
        ]
    )


def other_image(line, random):
    """An image of another kind that every decoder reads."""
    token, data = images_of(line)
    kind, mode = random.choice(
        [
            *(("PNG", "L"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "1"), ("PNG", "LA"), ("PNG", "I;16")),
            *(("JPEG", "L"), ("JPEG", "CMYK"), ("JPEG", "RGB"), ("WEBP", "RGB"), ("WEBP", "RGBA"), ("GIF", "P")),
            *(("BMP", "RGB"), ("TIFF", "RGB")),
        ]
    )
    size = random.choice([(1, 1), (1, 300), (300, 1), (33, 47), None])
    if mode == "I;16":
        image = Image.new("I;16", size or (9, 9), 40_000)
        buffer = io.BytesIO()
        image.save(buffer, kind)
        return line_of(token, buffer.getvalue())
    return line_of(token, saved(data, kind, mode, size))
