"""Words that the tasks and the base's corpus share: the base must have read every word that a module is asked about."""

from __future__ import annotations

PEOPLE = (
    *("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gwen", "Hugo", "Ida", "Jack", "Kim", "Leo", "Mia", "Noah", "Olga"),
    *("Paul", "Quinn", "Rosa", "Sam", "Tina", "Uma", "Vera", "Will", "Yara", "Zoe"),
)
THINGS = (
    *("apples", "books", "cards", "coins", "eggs", "flowers", "keys", "lemons", "marbles", "nuts", "pears", "pens"),
    *("plates", "shells", "stamps", "stones", "tickets", "toys"),
)
COLOURS = ("black", "blue", "brown", "green", "red", "white", "yellow")
CITIES = (
    *("Athens", "Berlin", "Cairo", "Delhi", "Geneva", "Lima", "Lisbon", "London", "Madrid", "Oslo", "Paris", "Prague"),
    *("Rome", "Seoul", "Tokyo", "Vienna", "Warsaw", "Zurich"),
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
LANGUAGES = ("Arabic", "Dutch", "English", "French", "German", "Greek", "Italian", "Korean", "Polish", "Spanish")
ROOMS = ("attic", "bathroom", "bedroom", "cellar", "garage", "garden", "hall", "kitchen", "office")
DISHES = ("bread", "cake", "curry", "pancakes", "pasta", "pizza", "rice", "salad", "soup", "stew")
TOPICS = ("art", "birds", "chess", "history", "jazz", "maps", "music", "planets", "rivers", "ships", "trains", "trees")
VERBS = ("apply", "calc", "check", "compute", "count", "find", "get", "make", "pick", "process", "run", "solve")
NOUNS = ("data", "item", "list", "mark", "part", "result", "row", "score", "step", "value", "word", "zone")
ARGUMENTS = ("a", "b", "data", "items", "k", "m", "n", "nums", "s", "text", "values", "x", "xs", "y")

ALL_WORDS = (
    *(*PEOPLE, *THINGS, *COLOURS, *CITIES, *DAYS, *LANGUAGES, *ROOMS, *DISHES, *TOPICS),
    *(*VERBS, *NOUNS, *ARGUMENTS),
)
