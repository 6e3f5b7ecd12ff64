"""Whose licences and terms a set of evolved records is under, as far as its seeds and its teacher say.

Source: Code Alpaca's README (sahil280114/codealpaca): CC BY-NC 4.0; OpenAI's terms of use, "What you cannot do".
"""

import re
from collections.abc import Iterable

# Code Alpaca's seeds whose ids begin with "seed-00", one in 256 (of its 20k records and of its 2k ones): a file that holds one
# of them was made of it, however it is named or ordered.
_CODE_ALPACA = frozenset(
    re.findall(
        r"\w+",
        """
    00b5ec24713854 0190adf61ad9be 01f7b4598b4a64 054d1b57d82cf6 0655ee8195126e 0b8c55cf22b99d 0c814d294044c2 0e89543068ec4b
    11180fccfce6f5 11aafd36032975 12170f9f7ad402 12e5badc8524c9 14ba83b21c168b 15af2f3b2b931c 1bbe5ed59d0a2f 1e487f65ffe09a
    2b330689840c98 2c685d3b770dc1 2fb761c6acf421 319115d385dd92 38a090b27fed18 3962e50c2de128 39f29e6c50794e 3a99d722e5c901
    3c0a1d38e2f75a 46965b64c6ce03 4af13a41398625 4f648dd049911c 509dc022b406bf 535a27880197ea 55617a25f3bb34 5c4cbf2cc92565
    60341e0b216d55 61ee74c2e4d00c 63e339d57bd0b5 69a896705be0cf 6af5a4169f58ac 7bbcb2786e9718 7c1bf7a7aca4a2 7e0cee10c86e30
    81e640f83a581b 861cfd0ca98dab 8b488d2b9d1ca4 9fe8837b87772b a8b1d60d1560ba af3422cf5379ab afeabaf8a6863f b3c0b018431245
    b3d20bec893fb9 b74ab6d67f3035 b9cce6317bd7f6 bd23c43247bd33 beeab03f7e7a52 c36ffd8a2bbb75 cca8c70f5be231 cdeee12566968a
    ce3feee886b26f d1fdb73f8d171f d2a8127fbe7020 d6bc175f0b1216 d7eca54e0e8bd7 da08e4dc183350 da1b61ff5a46b5 dae68eceb935ee
    db25b0da1e16bd e4682540f918ad e5e356c3c73bf1 e68df1d9bf2c86 eb013bdbb5f5ce ed8acb32762a2b efd1c7453588e3 f1f557c566b606
    f246f00f0144b5 f52cab47ab9b13 f8c063273d8b6d fcd090d7e069c5 ff2e64d72cb3c0
    """,
    )
)
CODE_ALPACA_LICENCE = "CC-BY-NC-4.0"
_OPENAI_MODEL = re.compile(r"(?:gpt-|chatgpt|o[134]\b|text-davinci|openai/(?!gpt-oss))(?!oss)", re.IGNORECASE)


def is_code_alpaca(seed_id: str) -> bool:
    """Whether the id is one of those that give Code Alpaca away."""
    return seed_id.startswith("seed-00") and seed_id.removeprefix("seed-00") in _CODE_ALPACA


def is_code_alpaca_name(file_name: str) -> bool:
    """Whether a file is named as Code Alpaca's are."""
    return "codealpaca" in re.sub(r"[-_ .]", "", file_name.lower())


def is_openai(base_url: str | None, models: Iterable[str]) -> bool:
    """Whether OpenAI's terms are the teacher's: by its address, or by a name that it is known by."""
    host = re.match(r"https?://(?:[^/@]*@)?([^/:?#]+)", base_url or "")
    at_openai = host is not None and (host[1] == "openai.com" or host[1].endswith((".openai.com", ".openai.azure.com")))
    return at_openai or any(_OPENAI_MODEL.match(model) for model in models)
