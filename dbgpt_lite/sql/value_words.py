"""Other names of values that people say and databases do not hold: countries by short name or by adjective."""

_COUNTRIES = """
    United States: usa, us, u.s., u.s.a., america, american, the united states, the us, the usa
    United Kingdom: uk, u.k., britain, british, great britain, the uk, the united kingdom
    Netherlands: holland, dutch, the netherlands
    South Korea: korea, korean, republic of korea
    Czech Republic: czechia, czech
    China: chinese, prc
    Germany: german
    France: french
    Spain: spanish
    Italy: italian
    Portugal: portuguese
    Sweden: swedish
    Denmark: danish
    Norway: norwegian
    Finland: finnish
    Poland: polish
    Austria: austrian
    Switzerland: swiss
    Belgium: belgian
    Greece: greek
    Ireland: irish
    Russia: russian
    Turkey: turkish, türkiye
    Japan: japanese
    India: indian
    Indonesia: indonesian
    Thailand: thai
    Vietnam: vietnamese
    Singapore: singaporean
    Malaysia: malaysian
    Australia: australian
    New Zealand: new zealander
    Canada: canadian
    Mexico: mexican
    Brazil: brazilian
    Argentina: argentinian, argentine
    Chile: chilean
    Egypt: egyptian
    South Africa: south african
    Israel: israeli
"""


def _parse(text: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for line in text.strip().splitlines():
        name, _, others = line.strip().partition(": ")
        names = (name, *others.split(", "))
        for other in names:
            found[other.casefold()] = tuple(one for one in names if one != other)
    return found


_OTHER_NAMES = _parse(_COUNTRIES)


def other_names(value: str) -> tuple[str, ...]:
    """What else the same thing is called, the usual name first; empty for what is not on the list."""
    return _OTHER_NAMES.get(" ".join(value.casefold().split()), ())
