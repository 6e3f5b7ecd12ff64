"""Detection of seeds and teachers whose license or terms of use restrict the evolved records: Code Alpaca and OpenAI.

Source: Code Alpaca's README (sahil280114/codealpaca) states the license CC BY-NC 4.0. OpenAI's terms of use, section "What you
cannot do", forbid using the output to develop competing models.
"""

import re
from collections.abc import Iterable

# Characters 6 to 15 (counted from 0) of the ids of all Code Alpaca seeds whose id starts with "seed-00" to "seed-03": one in 64
# seeds of both the 20k and the 2k version. A file with any of these seeds was derived from Code Alpaca.
_CODE_ALPACA = frozenset(
    re.findall(
        r"\w+",
        """
        000b5ec247 00190adf61 001f7b4598 0054d1b57d 00655ee819 00b8c55cf2 00c814d294 00e8954306 011180fccf 011aafd360
        012170f9f7 012e5badc8 014ba83b21 015af2f3b2 01bbe5ed59 01e487f65f 02b3306898 02c685d3b7 02fb761c6a 0319115d38
        038a090b27 03962e50c2 039f29e6c5 03a99d722e 03c0a1d38e 046965b64c 04af13a413 04f648dd04 0509dc022b 0535a27880
        055617a25f 05c4cbf2cc 060341e0b2 061ee74c2e 063e339d57 069a896705 06af5a4169 07bbcb2786 07c1bf7a7a 07e0cee10c
        081e640f83 0861cfd0ca 08b488d2b9 09fe8837b8 0a8b1d60d1 0af3422cf5 0afeabaf8a 0b3c0b0184 0b3d20bec8 0b74ab6d67
        0b9cce6317 0bd23c4324 0beeab03f7 0c36ffd8a2 0cca8c70f5 0cdeee1256 0ce3feee88 0d1fdb73f8 0d2a8127fb 0d6bc175f0
        0d7eca54e0 0da08e4dc1 0da1b61ff5 0dae68eceb 0db25b0da1 0e4682540f 0e5e356c3c 0e68df1d9b 0eb013bdbb 0ed8acb327
        0efd1c7453 0f1f557c56 0f246f00f0 0f52cab47a 0f8c063273 0fcd090d7e 0ff2e64d72 101f01387e 104dbfc230 10586fd966
        1086a31904 1096594fdc 10a7e14ee7 10baef40c8 10d9deea5a 10ecdb0783 114a1f591e 115d1cbe4a 11c626a370 120c4a8a14
        1222ac5b0f 126a4cec0c 1275466a61 127777f255 12e39d8a74 1324023ac4 13c3d90e24 13c6677d04 13e95b26c7 140a940560
        140aca91cd 141dab6d86 14bc6dc983 14f8095f7e 1502a77f70 15341fd8c0 1556f45877 155a6e335a 15767bde69 15c4884831
        15f5c5e658 15f86a3964 167169ec2b 1671fec822 1687c21311 16a2cb69c4 16ea86d41a 16f4cf9ce2 172f7ee0ea 179c74dfd9
        17c07a78c6 17c4e5340c 1811be4834 1876133af3 187666a5ad 1890b88f1a 18b0d50344 18bf3c8dfb 18f3c88368 194fd6c0bc
        195ee1a66f 19686f6f5b 199f9473e1 1a6d42ed0e 1abe954b51 1b02942a7a 1b060c8432 1b652b1d81 1b8aa60219 1c0917483f
        1c2089d84b 1c2ae4d244 1c6cbf48d9 1c78889119 1ccf1d5c07 1cff88559b 1d2205fe8b 1d5887dc9b 1d6a0c87b1 1d6d001dd4
        1d734ebd10 1d79b448ca 1dced9d77a 1de64b7d1e 1e00c942f5 1e3eed546d 1e7603b27b 1e7da55db0 1e969a44ac 1ecb3a504c
        1f09ec50b7 1f10710838 1f16099a8d 1fac6040ef 1fbcf27dd3 1ff0b44949 201c8c0fc0 20362c34a5 2036fec546 2052b912b2
        205914dc28 206dabb258 206f7ed4c8 21389eda09 213ada0339 21491f2b99 21eccb7998 2291ac83b1 22e7a1b6db 22eca10488
        23486f2d95 2357022848 23a1979c99 23f9d6e0be 243b1c2d82 24715dfe81 247cdf6e9c 248b56af61 24ccb9f951 25c630cdcd
        264473dd17 264f4a5e03 26515f4c25 2659bd751e 26d425a7e7 26eeb86d74 27229303fd 272836bf1f 272ae8f203 2760c9341a
        280ec0dc18 282fccb557 28cbeebc6f 296fd6f8ad 29934e6546 299b713646 29b133bb01 29b56f9642 29c3bb252c 2ab084f4f5
        2afa2573cb 2b036b9121 2b34fbd352 2b582e9de7 2b593ff481 2b971360fe 2bd8876689 2c0fde67d4 2c19210628 2c22289900
        2c62467491 2c7e5270bc 2d0ed787a3 2d4bd89389 2d67564994 2d6c680f15 2d89074087 2dc5114bb4 2dc9a32c2e 2dda20cd1e
        2ddf74c941 2de79aecef 2e26562106 2e80830424 2e9ca2481e 2e9e0f8ee1 2ecc8d97a2 2ee5b7a696 2ef0a13e92 2ef67c3601
        2eff7d6b68 2f23343a6e 2f24c1c34e 2f4eaac889 2f9be1ddf6 2fa3dd9db6 2feb013cb9 2ffa53a7c2 316ad196a1 317c78354c
        319e9c9496 31a79caf14 31d965a6cd 31ea9954de 32768d292f 327c33ed04 32d44ef124 332f54d88f 33311c795b 3367d3285e
        337293e7d1 33cc3d9f3d 33f0b7f561 340351f23f 34514f2d38 347efc8d48 349cb2c135 34af893970 34d4320ece 34dbae3f1d
        34ed156727 34faf5ccb5 351d1e03f4 351f0d11be 3537ecc20c 355cdd1241 356f99fab9 35827428a3 35b59d0af2 3615c83987
        36aac51d1c 36d52b1f0f 36de1a7a41 37c2a0e273 37fb09a8f3 38075b372a 38451148ab 391c21c8f7 393c3e7d1c 39ff66f4f0
        3a20ad18b4 3a418e3bab 3a635156f6 3a668dad2b 3a735b1cca 3ad357f475 3b31166045 3b3fe5e7ff 3b4206adfe 3b4a971caf
        3ba3b69341 3bb0ba1e87 3bba0c9b78 3bd29ef4e3 3c01f4621e 3c18ca5980 3c64a7800c 3c711ad17d 3c763b64f4 3c981dd76d
        3d03ccbb4e 3d294d6392 3d4ff9d59e 3d6866706c 3d8aa2b238 3db97d8750 3dba313dfd 3dd3b107ea 3e0bfd5676 3e25e80ee8
        3e27ce50b9 3e335b1a06 3e52d8b6b9 3e6c45acf9 3e84597ded 3e8b11920e 3e98660d7f 3e991e898d 3ec3217a13 3f9bb1af95
        3fb3bdb386 3fcf303010
        """,
    )
)
CODE_ALPACA_LICENSE = "CC-BY-NC-4.0"
_OPENAI_MODEL = re.compile(r"(?:gpt-|chatgpt|o[134]\b|text-davinci|openai/(?!gpt-oss))(?!oss)", re.IGNORECASE)


def is_code_alpaca(seed_id: str) -> bool:
    """Return whether a seed id is one of the sampled ids of Code Alpaca seeds."""
    return seed_id.startswith("seed-0") and seed_id[6:16] in _CODE_ALPACA


def is_code_alpaca_name(file_name: str) -> bool:
    """Return whether a file name contains "codealpaca", ignoring case, spaces and punctuation."""
    return "codealpaca" in re.sub(r"[-_ .]", "", file_name.lower())


def is_openai(base_url: str | None, models: Iterable[str]) -> bool:
    """Return whether the teacher's address or a model name shows that OpenAI's terms apply.

    Args:
        base_url: address of the teacher's server; None for a teacher without server.
        models: names of the models that answered.
    """
    host = re.match(r"https?://(?:[^/@]*@)?([^/:?#]+)", base_url or "")
    at_openai = host is not None and (host[1] == "openai.com" or host[1].endswith((".openai.com", ".openai.azure.com")))
    return at_openai or any(_OPENAI_MODEL.match(model) for model in models)
