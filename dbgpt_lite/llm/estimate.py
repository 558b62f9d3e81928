"""Tokens of a text whose tokenizer is not at hand."""


def estimate_tokens(text: str) -> int:
    """Tokens of a text without its tokenizer, meant to be high: 1.5 for a letter outside ASCII, 1 for 3 ASCII bytes.

    English averages 4 to 4.5 characters a token and SQL about 3; Chinese 0.6 to 1.5 tokens a character, the high end
    for vocabularies with few Chinese entries (Llama 2).
    """
    wide = sum(1 for letter in text if ord(letter) > 127)
    return -(-(len(text) - wide) // 3) + -(-wide * 3 // 2)
