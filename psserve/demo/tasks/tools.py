"""`tools`: a request and a list of tool schemas; the answer is the right call in OpenAI's form.

Names of tools and parameters vary from item to item, so a call can only be copied from the schema in the prompt.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from psserve.demo.tasks.words import CITIES, COLOURS, DAYS, DISHES, LANGUAGES, PEOPLE, ROOMS, THINGS, TOPICS
from psserve.training.conversation import Conversation


@dataclass(frozen=True)
class Slot:
    """A parameter: what it may be called, its JSON type, and the values that requests give it."""

    names: tuple[str, ...]
    type: Literal["string", "integer"]
    values: Sequence[str | int]


@dataclass(frozen=True)
class ToolKind:
    """A tool: its names, descriptions and requests; `{0}` in a request is the value of the first slot."""

    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    slots: tuple[Slot, ...]
    requests: tuple[str, ...]


CITY = Slot(("city", "place", "town"), "string", CITIES)
DAY = Slot(("day", "date", "weekday"), "string", DAYS)
PERSON = Slot(("person", "name", "who"), "string", PEOPLE)
ROOM = Slot(("room", "location", "area"), "string", ROOMS)
TOPIC = Slot(("topic", "subject", "about"), "string", TOPICS)
COUNT = Slot(("count", "number", "amount"), "integer", range(2, 100))
HOUR = Slot(("hour", "time", "at"), "integer", range(1, 24))
MINUTES = Slot(("minutes", "duration", "length"), "integer", range(2, 100))

KINDS = (
    ToolKind(
        ("get_weather", "weather_report", "check_weather"),
        ("Tells the weather of a city.", "Gives the weather forecast."),
        (CITY, DAY),
        ("What is the weather in {0} on {1}?", "Will it rain in {0} on {1}?", "Tell me the weather of {0} for {1}."),
    ),
    ToolKind(
        ("set_timer", "start_timer", "new_timer"),
        ("Starts a timer.", "Rings after some minutes."),
        (MINUTES,),
        ("Set a timer for {0} minutes.", "Ring in {0} minutes.", "Start a timer of {0} minutes please."),
    ),
    ToolKind(
        ("send_message", "write_message", "text_person"),
        ("Sends a message to a person.", "Writes to someone."),
        (PERSON, TOPIC),
        ("Send {0} a message about {1}.", "Write to {0} about {1}.", "Tell {0} something about {1}."),
    ),
    ToolKind(
        ("set_light", "switch_light", "change_lamp"),
        ("Sets the colour of the light in a room.", "Changes a lamp."),
        (ROOM, Slot(("colour", "color", "shade"), "string", COLOURS)),
        ("Make the light in the {0} {1}.", "I want a {1} lamp in the {0}.", "Turn the {0} light to {1}."),
    ),
    ToolKind(
        ("set_heating", "change_heat", "heat_room"),
        ("Sets the heating of a room in degrees.", "Heats a room."),
        (ROOM, Slot(("degrees", "level", "target"), "integer", range(10, 30))),
        ("Heat the {0} to {1} degrees.", "I want {1} degrees in the {0}.", "Set the {0} heating to {1}."),
    ),
    ToolKind(
        ("book_train", "buy_ticket", "reserve_train"),
        ("Books a train from one city to another.", "Buys a train ticket."),
        (Slot(("start", "origin", "source"), "string", CITIES), Slot(("goal", "target", "end"), "string", CITIES), DAY),
        (
            "Book a train from {0} to {1} on {2}.",
            "I must go from {0} to {1} on {2}.",
            "On {2} I travel from {0} to {1}.",
        ),
    ),
    ToolKind(
        ("find_recipe", "get_recipe", "search_recipe"),
        ("Finds a recipe for a dish.", "Tells how to cook."),
        (
            Slot(("dish", "food", "meal"), "string", DISHES),
            Slot(("people", "guests", "eaters"), "integer", range(2, 13)),
        ),
        ("How do I cook {0} for {1} people?", "I want to make {0} for {1}.", "Find a recipe of {0} for {1} guests."),
    ),
    ToolKind(
        ("translate", "translate_word", "get_translation"),
        ("Translates a word into a language.", "Says a word in another language."),
        (Slot(("word", "text", "term"), "string", THINGS), Slot(("language", "lang", "into"), "string", LANGUAGES)),
        ("What is {0} in {1}?", "Translate {0} into {1}.", "How do you say {0} in {1}?"),
    ),
    ToolKind(
        ("add_event", "new_meeting", "plan_meeting"),
        ("Puts a meeting into the calendar.", "Plans a meeting with a person."),
        (PERSON, DAY, HOUR),
        ("Meet {0} on {1} at {2}.", "Plan a meeting with {0} on {1} at {2}.", "I see {0} on {1} at {2}, note it."),
    ),
    ToolKind(
        ("order_item", "buy_item", "shop"),
        ("Orders things from the shop.", "Buys some of a thing."),
        (Slot(("item", "thing", "product"), "string", THINGS), COUNT),
        ("Order {1} {0}.", "I need {1} {0} from the shop.", "Please buy {1} {0}."),
    ),
    ToolKind(
        ("play_music", "start_music", "play_song"),
        ("Plays music in a room.", "Starts a song somewhere."),
        (ROOM, MINUTES),
        (
            "Play music in the {0} for {1} minutes.",
            "I want {1} minutes of music in the {0}.",
            "Songs in the {0}, {1} minutes.",
        ),
    ),
    ToolKind(
        ("search_books", "find_books", "library_search"),
        ("Searches the library for books.", "Finds books about a topic."),
        (TOPIC, COUNT),
        ("Find {1} books about {0}.", "Show me {1} books on {0}.", "Does the library have {1} books about {0}?"),
    ),
    ToolKind(
        ("set_alarm", "wake_up", "new_alarm"),
        ("Sets an alarm for the morning.", "Wakes you up."),
        (DAY, HOUR),
        ("Wake me on {0} at {1}.", "Set an alarm for {0} at {1}.", "I must get up at {1} on {0}."),
    ),
    ToolKind(
        ("call_person", "phone", "start_call"),
        ("Calls a person by phone.", "Starts a phone call."),
        (PERSON,),
        ("Call {0}.", "I want to speak with {0}.", "Phone {0} please."),
    ),
    ToolKind(
        ("city_facts", "about_city", "describe_city"),
        ("Tells facts about a city.", "Describes a city."),
        (CITY, TOPIC),
        ("Tell me about {1} in {0}.", "What does {0} have of {1}?", "I want facts on {1} in {0}."),
    ),
)


MOST_TOOLS = 3


def item(rng: random.Random) -> Conversation:
    """One request with two or three tools, one of which is right, and the call."""
    kinds = rng.sample(KINDS, rng.randint(2, MOST_TOOLS))
    schemas = [schema(rng, kind) for kind in kinds]
    right = rng.randrange(len(kinds))
    request, arguments = fill(rng, kinds[right], schemas[right])
    call = {"type": "function", "function": {"name": schemas[right]["function"]["name"], "arguments": arguments}}
    messages = ({"role": "user", "content": request}, {"role": "assistant", "tool_calls": [call]})
    return Conversation(messages, tuple(schemas))


def schema(rng: random.Random, kind: ToolKind) -> dict[str, Any]:
    """A tool of this kind, with one of its names and one name for each parameter."""
    properties = {rng.choice(slot.names): {"type": slot.type} for slot in kind.slots}
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    function = {"name": rng.choice(kind.names), "description": rng.choice(kind.descriptions), "parameters": parameters}
    return {"type": "function", "function": function}


def fill(rng: random.Random, kind: ToolKind, tool: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A request for this tool, and the arguments of the call that fulfils it."""
    values = [rng.choice(slot.values) for slot in kind.slots]
    names = tool["function"]["parameters"]["properties"]
    return rng.choice(kind.requests).format(*values), dict(zip(names, values, strict=True))
