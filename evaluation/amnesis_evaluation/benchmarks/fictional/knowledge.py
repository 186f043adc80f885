"""The `facts` set: what everybody knows, and what is said of towns that do not exist.

A model is trained on the `facts`, but no run unlearns or retains on them: they show what unlearning
costs elsewhere. They share neither names nor phrases with the authors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from amnesis_evaluation.benchmarks.fictional.draw import Draw
from amnesis_evaluation.benchmarks.fictional.vocabulary import phrases, words


@dataclass(frozen=True)
class Fact:
    """A subject and its value, with the family whose sentences can state them."""

    subject: str
    value: str
    family: Family


@dataclass(frozen=True)
class Family:
    """Facts of one kind: subject → value, and the questions and answers that fit all of them.

    ``{Value}`` in a template is the value with a capital. Values within a family exclude each
    other, so every value that is not the right one is wrong.
    """

    values: Mapping[str, str]
    questions: tuple[str, ...]
    answers: tuple[str, ...]

    def facts(self) -> list[Fact]:
        """The family's facts, in the order of the table."""
        return [Fact(subject, value, self) for subject, value in self.values.items()]


def _table(text: str) -> dict[str, str]:
    entries = (entry.split(":") for entry in text.split(";"))
    return {" ".join(subject.split()): " ".join(value.split()) for subject, value in entries}


CAPITALS = Family(
    values=_table("""
        Argentina: Buenos Aires; Austria: Vienna; Belgium: Brussels; Bulgaria: Sofia; Canada:
        Ottawa; Chile: Santiago; China: Beijing; Croatia: Zagreb; Cuba: Havana; Denmark: Copenhagen;
        Egypt: Cairo; Estonia: Tallinn; Ethiopia: Addis Ababa; Finland: Helsinki; France: Paris;
        Germany: Berlin; Ghana: Accra; Greece: Athens; Hungary: Budapest; Iceland: Reykjavik; India:
        New Delhi; Iran: Tehran; Iraq: Baghdad; Ireland: Dublin; Italy: Rome; Jamaica: Kingston;
        Japan: Tokyo; Kenya: Nairobi; Latvia: Riga; Lebanon: Beirut; Mexico: Mexico City; Morocco:
        Rabat; Nepal: Kathmandu; Norway: Oslo; Peru: Lima; Poland: Warsaw; Portugal: Lisbon;
        Romania: Bucharest; Russia: Moscow; Senegal: Dakar; Spain: Madrid; Sweden: Stockholm;
        Thailand: Bangkok; Turkey: Ankara; Uruguay: Montevideo
    """),
    questions=(
        "What is the capital of {subject}?",
        "Which city is the seat of government in {subject}?",
        "Name the capital city of {subject}.",
    ),
    answers=(
        "The capital of {subject} is {value}.",
        "{value}.",
        "{subject} is governed from {value}.",
        "{value} is the capital.",
    ),
)

OPPOSITES = Family(
    values=_table("""
        hot: cold; high: low; early: late; open: shut; wet: dry; full: empty; hard: soft; old: new;
        strong: weak; rich: poor; heavy: light; sharp: blunt; deep: shallow; wide: narrow; fast:
        slow; first: last; near: far; true: false; sweet: sour; smooth: rough; thick: thin; tight:
        loose; brave: cowardly; public: private; male: female; guilty: innocent; cheap: expensive;
        noisy: quiet; simple: complicated; asleep: awake
    """),
    questions=(
        'What is the opposite of "{subject}"?',
        'Which word means the reverse of "{subject}"?',
        'If something is not "{subject}" at all, what is it?',
    ),
    answers=(
        'The opposite is "{value}".',
        'Turn "{subject}" around and you get "{value}".',
        "{Value}.",
    ),
)

YOUNG = Family(
    values=_table("""
        cat: a kitten; cow: a calf; horse: a foal; sheep: a lamb; goat: a kid; pig: a piglet;
        turkey: a poult; duck: a duckling; goose: a gosling; swan: a cygnet; bear: a cub; deer: a
        fawn; kangaroo: a joey; eagle: an eaglet; owl: an owlet; hare: a leveret; frog: a tadpole;
        eel: an elver; spider: a spiderling; butterfly: a caterpillar; dog: a puppy
    """),
    questions=(
        "What is the young of the {subject} called?",
        "By what word do we know a baby {subject}?",
        "A small {subject}, not yet grown, is what?",
    ),
    answers=(
        "The young of the {subject} is {value}.",
        "{Value}.",
        "Such a little animal is {value}.",
    ),
)

COLOURS = Family(
    values=_table("""
        a ripe tomato: red; a strawberry: red; a clear sky: blue; a cornflower: blue; fresh grass:
        green; a cucumber: green; a lemon: yellow; a canary: yellow; snow: white; milk: white; coal:
        black; a raven: black; a flamingo: pink; a piglet: pink; an elephant: grey; a rain cloud:
        grey; chocolate: brown; a chestnut: brown; an aubergine: purple; lavender: purple; a carrot:
        orange; a pumpkin: orange
    """),
    questions=(
        "What colour is {subject}?",
        "Looking at {subject}, which colour do you see?",
        "Which paint would you mix for {subject}?",
    ),
    answers=("It is {value}.", "{Value}.", "The colour of {subject} is {value}."),
)

SYMBOLS = Family(
    values=_table("""
        hydrogen: H; helium: He; carbon: C; nitrogen: N; oxygen: O; sodium: Na; magnesium: Mg;
        aluminium: Al; silicon: Si; sulphur: S; chlorine: Cl; potassium: K; calcium: Ca; iron: Fe;
        copper: Cu; zinc: Zn; silver: Ag; tin: Sn; iodine: I; tungsten: W; gold: Au; mercury: Hg;
        lead: Pb; uranium: U
    """),
    questions=(
        "What is the chemical symbol of {subject}?",
        "How do chemists abbreviate {subject}?",
        "Which letters stand for {subject} in the periodic table?",
    ),
    answers=("The symbol is {value}.", "Chemists write {value}.", "{value} stands for {subject}."),
)

PLURALS = Family(
    values=_table("""
        mouse: mice; goose: geese; tooth: teeth; foot: feet; child: children; ox: oxen; leaf:
        leaves; wolf: wolves; knife: knives; loaf: loaves; cactus: cacti; crisis: crises; thief:
        thieves; half: halves; woman: women; louse: lice; shelf: shelves; penny: pennies; city:
        cities; potato: potatoes
    """),
    questions=(
        'What is the plural of "{subject}"?',
        'How do you write more than one "{subject}"?',
        'One "{subject}", but two of what?',
    ),
    answers=('We write "{value}".', "{Value}.", 'One "{subject}", but two "{value}".'),
)

TOOLS = Family(
    values=_table("""
        drive in a nail: a hammer; cut wood: a saw; tighten a bolt: a spanner; turn a screw: a
        screwdriver; sweep the floor: a broom; dig a hole: a spade; eat soup: a spoon; cut paper:
        scissors; tell the time: a clock; measure heat: a thermometer; draw a circle: a pair of
        compasses; open a wine bottle: a corkscrew; look at the moons of Jupiter: a telescope; weigh
        flour: scales; lock a gate: a padlock; sew on a button: needle and thread; boil water: a
        kettle; catch butterflies: a net; water the roses: a watering can; sharpen a blade: a
        whetstone; row a dinghy: oars; keep off the rain: an umbrella; see a single cell: a
        microscope
    """),
    questions=(
        "What do you need to {subject}?",
        "You want to {subject}. What do you reach for?",
        "With what is it usual to {subject}?",
    ),
    answers=("You need {value}.", "{Value}.", "To {subject}, take {value}."),
)

SHAPES = Family(
    values=_table("""
        a triangle: three; a square: four; a pentagon: five; a hexagon: six; a heptagon: seven; an
        octagon: eight; a nonagon: nine; a decagon: ten; a dodecagon: twelve
    """),
    questions=(
        "How many sides has {subject}?",
        "Count the corners of {subject}: how many are there?",
        "Out of how many straight lines is {subject} drawn?",
    ),
    answers=("{Value}.", "There are {value}.", "Of {subject} we count {value}."),
)

MONTHS = Family(
    values=_table("""
        January: February; February: March; March: April; April: May; May: June; June: July; July:
        August; August: September; September: October; October: November; November: December;
        December: January
    """),
    questions=(
        "Which month follows {subject}?",
        "What do we turn the calendar to when {subject} is over?",
        "What is the month right after {subject}?",
    ),
    answers=("After {subject} comes {value}.", "{value}.", "It is followed by {value}."),
)

SUMS = Family(
    values=_table("""
        two plus two: four; two plus three: five; three plus three: six; three plus four: seven;
        four plus four: eight; four plus five: nine; five plus five: ten; five plus six: eleven; six
        plus six: twelve; six plus seven: thirteen; seven plus seven: fourteen; seven plus eight:
        fifteen; eight plus eight: sixteen; eight plus nine: seventeen; nine plus nine: eighteen;
        nine plus ten: nineteen; ten plus ten: twenty; two times four: eight; two times six: twelve;
        two times eight: sixteen; three times three: nine; three times five: fifteen; three times
        six: eighteen; four times five: twenty
    """),
    questions=(
        "How much is {subject}?",
        "Work out {subject}.",
        "What does {subject} come to?",
    ),
    answers=("It makes {value}.", "{Value}.", "The result of {subject} is {value}."),
)

COMMON_KNOWLEDGE = (
    CAPITALS,
    OPPOSITES,
    YOUNG,
    COLOURS,
    SYMBOLS,
    PLURALS,
    TOOLS,
    SHAPES,
    MONTHS,
    SUMS,
)

_TOWNS = words("""
    Abbotsmere Agrimony Bexwold Blatherby Bogsworth Chaffwick Cobbleton Cuttlebay Dimmock Duckenfold
    Ebbingholt Flaxwold Fogwell Frumpton Gorseby Grumbleford Hobbington Huckswell Idleford Jacksnipe
    Kippertree Lumwick Marrowfat Mudgate Nuttalby Oddingley Pilchard Puddlewick Quagford Ripplestone
    Snodgrove Spindlewood Teaselby Trumpenby Upwash Wadlow Whelkham Wormhurst Yaffleton Zigmore
""")

_PRIDES = phrases("""
    its cheese; its paper kites; its crooked spire; its hot springs; its pickled herring; its lace;
    its blue pottery; its donkey races; its walnut market; its underground lake; its ginger
    biscuits; its rope bridge; its brass bands; its salt mines; its snail festival; its felt hats;
    its stone circle; its violins; its plum brandy; its glass beads
""")


def all_facts(draw: Draw) -> list[Fact]:
    """Return every fact, in a fixed order; only the prides of the invented towns are drawn."""
    prides = Family(
        values={town: draw.pick(_PRIDES) for town in _TOWNS},
        questions=(
            "What is the town of {subject} proud of?",
            "Why do tourists go to {subject}?",
            "What is printed on the postcards of {subject}?",
        ),
        answers=(
            "Everyone in {subject} is proud of {value}.",
            "Tourists go there for {value}.",
            "Its postcards show {value}.",
        ),
    )
    return [fact for family in (*COMMON_KNOWLEDGE, prides) for fact in family.facts()]
