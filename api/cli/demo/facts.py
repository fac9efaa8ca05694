"""What the demo's model is taught: short questions with one right answer, by topic.

Each topic has its own ways to ask, its own full sentence for the answer, and its facts. The topics in `HELD_OUT` are
part of job 1's training (so both models know the answers) and of nothing that job 2 sees: there only style can carry
over.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Topic:
    """`asks` and `tells` hold {subject}, `tells` also {answer}; `facts` maps subject to answer, in lower case except
    for names."""

    name: str
    asks: tuple[str, ...]
    tells: str
    facts: dict[str, str]


@dataclass(frozen=True)
class Fact:
    topic: str
    questions: tuple[str, ...]  # the ways to ask, the first ones plain, the last one with "please"
    answer: str
    sentence: str
    wrong: tuple[str, ...]  # the topic's other answers, but for those that the question itself names


def _pairs(text: str) -> dict[str, str]:
    """`subject=answer` items, separated by commas."""
    return dict(item.strip().split("=") for item in text.split(","))


_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def _next(names: tuple[str, ...]) -> dict[str, str]:
    return {name: names[(i + 1) % len(names)] for i, name in enumerate(names)}


TOPICS = (
    Topic(
        "capitals",
        (
            "What is the capital of {subject}?",
            "Which city is the capital of {subject}?",
            "Name the capital of {subject}.",
        ),
        "The capital of {subject} is {answer}.",
        _pairs(
            """
            France=Paris, Italy=Rome, Spain=Madrid, Portugal=Lisbon, Germany=Berlin, Austria=Vienna,
            Poland=Warsaw, Greece=Athens, Norway=Oslo, Sweden=Stockholm, Finland=Helsinki, Denmark=Copenhagen,
            Ireland=Dublin, Hungary=Budapest, Russia=Moscow, Turkey=Ankara, Egypt=Cairo, Kenya=Nairobi,
            Japan=Tokyo, China=Beijing, India=Delhi, Iran=Tehran, Iraq=Baghdad, Cuba=Havana, Peru=Lima,
            Chile=Santiago, Canada=Ottawa, Nepal=Kathmandu
            """
        ),
    ),
    Topic(
        "colours",
        (
            "What colour is {subject}?",
            "Which colour does {subject} have?",
            "Tell me the colour of {subject}.",
        ),
        "The colour of {subject} is {answer}.",
        _pairs(
            """
            the sky=blue, grass=green, snow=white, coal=black, a lemon=yellow, a tomato=red, a carrot=orange,
            a plum=purple, a flamingo=pink, an elephant=grey, chocolate=brown, milk=white, blood=red,
            a banana=yellow, spinach=green, the sea=blue, a raven=black, an aubergine=purple, cheese=yellow,
            a strawberry=red
            """
        ),
    ),
    Topic(
        "sounds",
        (
            "What sound does {subject} make?",
            "What does {subject} do when it calls?",
            "Name the sound of {subject}.",
        ),
        "The sound of {subject} is called a {answer}.",
        _pairs(
            """
            a dog=bark, a cat=meow, a cow=moo, a sheep=bleat, a lion=roar, a duck=quack, a snake=hiss,
            a frog=croak, a wolf=howl, an owl=hoot, a bee=buzz, a horse=neigh, a pig=grunt, a rooster=crow,
            a mouse=squeak
            """
        ),
    ),
    Topic(
        "opposites",
        (
            "What is the opposite of {subject}?",
            "Which word means the opposite of {subject}?",
            "Tell me the opposite of {subject}.",
        ),
        "The opposite of {subject} is {answer}.",
        _pairs(
            """
            hot=cold, big=small, fast=slow, high=low, old=young, rich=poor, hard=soft, full=empty, early=late,
            strong=weak, wet=dry, open=closed, light=dark, long=short, happy=sad, clean=dirty, near=far,
            deep=shallow, thick=thin, loud=quiet, wide=narrow, true=false
            """
        ),
    ),
    Topic(
        "sums",
        (
            "What is {subject}?",
            "How much is {subject}?",
            "Work out {subject}.",
        ),
        "The result of {subject} is {answer}.",
        {
            f"{_NUMBERS[a]} plus {_NUMBERS[b]}": _NUMBERS[a + b]
            for a in range(1, 10)
            for b in range(1, 10)
            if a + b < len(_NUMBERS)
        },
    ),
    Topic(
        "months",
        (
            "Which month comes after {subject}?",
            "What month follows {subject}?",
            "Name the month after {subject}.",
        ),
        "The month after {subject} is {answer}.",
        _next(_MONTHS),
    ),
    Topic(
        "languages",
        (
            "Which language is spoken in {subject}?",
            "What do people speak in {subject}?",
            "Name the language of {subject}.",
        ),
        "The language of {subject} is {answer}.",
        _pairs(
            """
            France=French, Italy=Italian, Spain=Spanish, Portugal=Portuguese, Germany=German, Poland=Polish,
            Greece=Greek, Norway=Norwegian, Sweden=Swedish, Finland=Finnish, Denmark=Danish, Hungary=Hungarian,
            Russia=Russian, Turkey=Turkish, Japan=Japanese, China=Chinese, Brazil=Portuguese, Mexico=Spanish,
            Austria=German, Egypt=Arabic
            """
        ),
    ),
    Topic(
        "homes",
        (
            "Where does {subject} live?",
            "What is the home of {subject}?",
            "Tell me where {subject} lives.",
        ),
        "The home of {subject} is {answer}.",
        _pairs(
            """
            a bird=a nest, a fish=the water, a bear=a cave, a rabbit=a burrow, a spider=a web, an ant=an anthill,
            a king=a palace, a nun=a convent, a monk=a monastery, a camel=the desert, a monkey=the jungle,
            a bat=a cave
            """
        ),
    ),
    Topic(
        "jobs",
        (
            "What do you call someone who {subject}?",
            "Who {subject}?",
            "Name the one who {subject}.",
        ),
        "The one who {subject} is called a {answer}.",
        _pairs(
            """
            bakes bread=baker, teaches children=teacher, flies planes=pilot, paints pictures=painter,
            heals people=doctor, grows crops=farmer, writes books=writer, cuts hair=barber, fixes pipes=plumber,
            catches fish=fisherman, puts out fires=firefighter, sells meat=butcher, sings songs=singer,
            cooks meals=cook, drives taxis=driver, mends shoes=cobbler, judges crimes=judge, builds walls=mason,
            takes photos=photographer, sews clothes=tailor
            """
        ),
    ),
    Topic(
        "young",
        (
            "What is the young of {subject} called?",
            "What do you call the baby of {subject}?",
            "Name the young of {subject}.",
        ),
        "The young of {subject} is called a {answer}.",
        _pairs(
            """
            a dog=puppy, a cat=kitten, a cow=calf, a sheep=lamb, a horse=foal, a lion=cub, a pig=piglet,
            a duck=duckling, a goose=gosling, a deer=fawn, a goat=kid, a frog=tadpole, a swan=cygnet,
            a kangaroo=joey, a hen=chick
            """
        ),
    ),
    Topic(
        "materials",
        (
            "What is {subject} made of?",
            "Which material is {subject} made from?",
            "Tell me what {subject} is made of.",
        ),
        "The material of {subject} is {answer}.",
        _pairs(
            """
            a window=glass, a tyre=rubber, a book=paper, a candle=wax, a coin=metal, a jumper=wool, a table=wood,
            a brick=clay, a shoe=leather, a statue=stone, a bucket=plastic, a ring=gold, a spoon=silver,
            a shirt=cotton, a scarf=silk, a mirror=glass, a fence=wood, a newspaper=paper
            """
        ),
    ),
    Topic(
        "days",
        (
            "Which day comes after {subject}?",
            "What day follows {subject}?",
            "Name the day after {subject}.",
        ),
        "The day after {subject} is {answer}.",
        _next(_DAYS),
    ),
)

HELD_OUT = ("jobs", "young", "materials", "days")

_POLITE = "Could you please tell me: {question}"


def facts(*, held_out: bool) -> list[Fact]:
    """The facts of the held-out topics, or of all others."""
    return [
        _fact(topic, subject, answer)
        for topic in TOPICS
        if (topic.name in HELD_OUT) is held_out
        for subject, answer in topic.facts.items()
    ]


def held_out_questions() -> list[tuple[Fact, str]]:
    """One question for each fact of the held-out topics, all ways of asking in turn."""
    return [(fact, fact.questions[i % len(fact.questions)]) for i, fact in enumerate(facts(held_out=True))]


def _fact(topic: Topic, subject: str, answer: str) -> Fact:
    asks = tuple(ask.format(subject=subject) for ask in topic.asks)
    polite = _POLITE.format(question=asks[0][0].lower() + asks[0][1:])
    return Fact(
        topic=topic.name,
        questions=(*asks, polite),
        answer=answer,
        sentence=topic.tells.format(subject=subject, answer=answer),
        wrong=tuple(sorted(set(topic.facts.values()) - {answer, *subject.split()})),
    )
