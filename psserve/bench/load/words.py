"""Endless texts of common words, each the same for its name, and different from all others within a few words."""

from __future__ import annotations

import random

_COMMON = """
about above across after again air all along also always among animal answer area arm around ask away back ball
base bear beat bed begin bell best between big bird black blood blue boat body book both bottom box bread bring
brother build burn business but buy call came can car care carry case cat catch cause cell center chair change
check child choose circle city class clean clear climb close cloud coast cold color come common complete contain
control cook cool copy corn corner cost count country course cover cross cry current cut dance dark day dead deal
decide deep degree design develop die differ direct discuss distant divide do doctor dog dollar door down draw
dream dress drink drive drop dry each ear early earth ease east eat edge effect egg eight either element else end
energy engine enough enter equal even evening event every exact example except expect experience eye face fact
fall family famous far farm fast fat father favor fear feel few field fig fight figure fill final find fine finger
finish fire first fish fit five flat floor flow flower fly follow food foot for force forest form forward found
four free fresh friend from front fruit full fun game garden gas gather gave general gentle get girl give glad
glass go gold good grand grass gray great green ground group grow guess guide hair half hand happen happy hard
"""
WORDS = tuple(_COMMON.split())


def words(name: str, count: int) -> list[str]:
    """The first `count` words of the text called `name`: a longer text of one name begins with each shorter one."""

    return random.Random(name).choices(WORDS, k=count)
