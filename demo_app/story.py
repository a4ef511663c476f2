"""What is on the site when it opens: sections, articles, matches, readers. Plain data, no framework, no database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

SITE_NAME: Final = "The Touchline"

Side = Literal["home", "away"]


@dataclass(frozen=True, slots=True)
class SectionStory:
    """One department of the paper; the slug is part of its URL and picks its colour in the stylesheet."""

    slug: str
    name: str


@dataclass(frozen=True, slots=True)
class ArticleStory:
    """One article; `hours_ago` counts back from the moment the site is seeded."""

    slug: str
    section: str
    kicker: str
    title: str
    standfirst: str
    author: str
    hours_ago: int
    paragraphs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GoalStory:
    """One goal, in playing minutes."""

    minute: int
    side: Side
    scorer: str


@dataclass(frozen=True, slots=True)
class MatchStory:
    """One match of the endless match day; `head_start` shifts its kick-off, in playing minutes."""

    league: str
    home: str
    away: str
    head_start: int
    goals: tuple[GoalStory, ...]


@dataclass(frozen=True, slots=True)
class CommentStory:
    """One comment that was there before anybody came."""

    article: str
    by: str
    body: str


@dataclass(frozen=True, slots=True)
class ReaderStory:
    """One account; everybody's password is the reader's name, as befits a demonstration."""

    name: str
    display_name: str


SECTIONS: Final = (
    SectionStory("football", "Football"),
    SectionStory("cycling", "Cycling"),
    SectionStory("athletics", "Athletics"),
    SectionStory("tennis", "Tennis"),
    SectionStory("sailing", "Sailing"),
)

ARTICLES: Final = (
    ArticleStory(
        slug="harrow-bay-go-top",
        section="football",
        kicker="Coast League",
        title="Harrow Bay go top with the last touch of the night",
        standfirst="Ninety-three minutes of rain, one corner, and a goalkeeper who had no business being there.",
        author="Ines Calloway",
        hours_ago=1,
        paragraphs=(
            "For most of the evening the only thing moving quickly at the Breakwater was the weather. Harrow Bay had"
            " the ball, Port Ellery had eleven men behind it, and the two arrangements suited each other so well that"
            " the first shot on target came from a clearance that the wind turned round.",
            "Then the board went up with three minutes on it, and Bay won a corner they had not really asked for. Up"
            " came Tomas Weir, goalkeeper, thirty-six, in a yellow shirt that could be seen from the lighthouse. He"
            " did not head it so much as let it happen to him. The ball went in off the shoulder, and Weir set off on"
            " a run that took him past his manager, his bench and, briefly, the car park.",
            "It is nine years since Bay last led the table in November. Their manager, Odile Marsh, was asked whether"
            " she had told Weir to go forward. She had told him, she said, to stay exactly where he was.",
            "Ellery travelled home with a point fewer than their defending deserved. They have now conceded four goals"
            " after the ninetieth minute this season, and their supporters have started leaving early so as not to see"
            " the fifth.",
        ),
    ),
    ArticleStory(
        slug="sprint-train-derailed",
        section="cycling",
        kicker="Five Rivers, stage 6",
        title="The sprint train that left without its sprinter",
        standfirst="Corvin had six men on the front and the fastest finish in the race. Nobody looked back.",
        author="Matteo Quist",
        hours_ago=2,
        paragraphs=(
            "From the helicopter it was a textbook. Six riders in white, single file, the speed rising by a kilometre"
            " an hour with each one who swung off. At the flamme rouge there were two of them left, and behind those"
            " two there was a gap, and behind the gap, boxed in against the barriers with a hand in the air, was the"
            " man for whom all of this had been arranged.",
            "Luc Anders lost the wheel on the cobbles of the Rue Basse, where the road is five metres wide and the"
            " drain covers are not where the route book says. By the time the radio had told the front of the train,"
            " the front of the train had won the stage.",
            "So it was Pim Holloway, lead-out man, with eleven seasons and no victories, who crossed the line looking"
            " over his shoulder for somebody to congratulate. 'I kept waiting for him to come past,' he said. 'He is"
            " usually very quick.'",
            "Anders was generous about it. The overall lead stays with Yara Sefton's brother Emil, who finished in the"
            " bunch and complained only about the drain covers.",
        ),
    ),
    ArticleStory(
        slug="kilmarsh-ground-for-sale",
        section="football",
        kicker="Off the pitch",
        title="For sale: one football ground, slightly tilted",
        standfirst="Kilmarsh United have found a buyer for Fen Road. The pitch's famous slope is in the contract.",
        author="Bea Lindqvist",
        hours_ago=4,
        paragraphs=(
            "Every club has a twelfth man. Kilmarsh United have one metre and forty centimetres, which is how far the"
            " south-west corner of Fen Road lies below the north-east one. Visiting goalkeepers have measured it for"
            " generations by watching their goal kicks roll back.",
            "The ground is being sold to the county for a sum that clears the club's debts and leaves enough for a"
            " roof over the away end, a luxury no visitor has ever been offered. United stay on as tenants for"
            " thirty years. The slope stays for as long: it is listed in an appendix, with a drawing.",
            "'We would have levelled it in 1974,' said the chairman, Rufus Okafor, 'but we were top of the league and"
            " kicking downhill.'",
        ),
    ),
    ArticleStory(
        slug="mara-voss-800",
        section="athletics",
        kicker="Indoor season",
        title="Mara Voss runs the perfect lap, then one more",
        standfirst="The national 800 metres record had stood since before she was born. She took it by a stride.",
        author="Henrik Aydin",
        hours_ago=6,
        paragraphs=(
            "The pacemaker's instructions were 57 seconds for the first lap, and she delivered 57.0 with the air of"
            " somebody returning a library book. Voss was a metre behind, shoulders down, looking at nothing.",
            "What came next will be shown to young runners for years, because nothing visible happened. Most people"
            " who try for a record at this distance spend the third two hundred metres finding out that they cannot"
            " have it. Voss ran it in 29.1, exactly as fast as the one before.",
            "1:57.84. The old mark, 1:57.91, was set on a cinder track by a schoolteacher who was in the stands and"
            " got to her feet before the clock had stopped. 'I have been expecting her,' said Joan Pell, 71, 'since"
            " about the spring.'",
        ),
    ),
    ArticleStory(
        slug="northgate-academy",
        section="football",
        kicker="The long read",
        title="The boot room at the end of the bus line",
        standfirst="Northgate Rovers have sold eleven players for more than their stadium cost. They all took the 38.",
        author="Ines Calloway",
        hours_ago=9,
        paragraphs=(
            "The number 38 leaves the market square at twenty past four and reaches the Northgate training ground at"
            " five to five, provided nobody is moving sheep. For two decades it has been the most productive piece of"
            " infrastructure in the Coast League.",
            "Rovers do not own a dormitory, a school or a nutrition laboratory. They own a boot room, in which"
            " everybody from the under-nines to the captain cleans the boots of somebody else, and a rule that nobody"
            " under sixteen is told whether they won.",
            "'We do keep the score,' says Sunniva Rask, who has run the academy since 2006. 'We are not saints. But we"
            " keep it in here,' and she taps a drawer, 'and if they want to know they can work it out.'",
            "Of the eleven who were sold, nine came back to see her on the day they signed. The other two were on the"
            " wrong side of the river. She expects them in the summer.",
        ),
    ),
    ArticleStory(
        slug="tie-break-at-midnight",
        section="tennis",
        kicker="Ostrand Open",
        title="Tie-break at midnight, and a moth with a point to make",
        standfirst="Four hours and eleven minutes, two rain delays, one insect. Ilse Brandt is through.",
        author="Theo Marchetti",
        hours_ago=11,
        paragraphs=(
            "At six-all in the third a moth the size of a coin settled on the service line, and would not be moved by"
            " the umpire, two ball girls, or the applause. Ilse Brandt, 4-5 down in the tie-break and serving second"
            " balls, asked whether it could be left.",
            "It could. She served two aces over it. When her opponent, the third seed Pilar Noor, put a backhand long"
            " on the next point, the moth got up, flew once round the net post and left the stadium, in the words of"
            " the stadium announcer, to a standing ovation.",
            "Brandt plays the winner of tomorrow's first match. Noor, who had two match points in the second set, was"
            " asked about them, and about the moth, and answered only the first question.",
        ),
    ),
    ArticleStory(
        slug="becalmed-off-skerry",
        section="sailing",
        kicker="Round the Skerries",
        title="Becalmed: nineteen boats, no wind, and a very long lunch",
        standfirst="The fleet has moved four hundred metres since breakfast. Some of them backwards.",
        author="Freya Tolliver",
        hours_ago=15,
        paragraphs=(
            "By the rules of the Round the Skerries a crew may anchor but not paddle, which is why the leaders of the"
            " oldest offshore race on this coast spent Sunday tied to the sea bed within sight of a pub.",
            "The tide turned at two. Those who had anchored stayed where they were; those who had not discovered that"
            " the race office's tracker is perfectly able to display a negative speed. Kestrel, second at dawn, is now"
            " eleventh and closer to the start than it was on Friday evening.",
            "Wind is forecast for tomorrow. It was forecast for today as well.",
        ),
    ),
    ArticleStory(
        slug="vale-athletic-var",
        section="football",
        kicker="Coast League",
        title="Vale Athletic win the match that finished twice",
        standfirst="The whistle went, the players shook hands, and the referee called them back from the showers.",
        author="Bea Lindqvist",
        hours_ago=19,
        paragraphs=(
            "The first ending came at 4.49 in the afternoon, with the score at one-all. The second came twelve minutes"
            " later, after the fourth official had noticed that his watch and the stadium clock disagreed by precisely"
            " the length of the half-time presentation.",
            "Two Stonewick players returned in flip-flops and changed on the touchline. Vale, whose manager had never"
            " let them leave the pitch because he was not finished shouting, scored within forty seconds.",
            "The league has confirmed the result and ordered a new clock.",
        ),
    ),
    ArticleStory(
        slug="climb-without-a-name",
        section="cycling",
        kicker="Five Rivers, preview",
        title="Tomorrow, the climb without a name",
        standfirst="Eleven kilometres at nine per cent, and the villagers prefer that you do not ask.",
        author="Matteo Quist",
        hours_ago=23,
        paragraphs=(
            "On the profile of stage seven it is called 'Category 1', and on the map it is a grey thread with no"
            " lettering. The people who live at the bottom call it the road. The people at the top have no word for"
            " it, because none of them has ever had a reason to go down.",
            "It has been in the race three times. On each occasion the rider who led over the top has lost the race,"
            " and the one who was dropped first has won it, which tells you something about the descent.",
            "Emil Sefton rode it in June, in the rain, with his sister in a car behind. 'You get used to it,' he said,"
            " 'at about the end.'",
        ),
    ),
    ArticleStory(
        slug="pole-vault-barn",
        section="athletics",
        kicker="Portrait",
        title="She learned to fly in a barn",
        standfirst="The roof was five metres ten. It explains everything about how Oda Nilsen jumps.",
        author="Henrik Aydin",
        hours_ago=28,
        paragraphs=(
            "If you grow up vaulting under a beam you learn to go forward rather than up, and to be very sure about"
            " it. Oda Nilsen's coach, who is also her uncle and owned the barn, raised the bar every autumn until"
            " there was no barn left to raise it in.",
            "Last month she cleared 4.85 outdoors, under a sky, and looked at it for so long afterwards that she was"
            " given a warning for delay.",
            "'It keeps going,' she said of the sky. 'I had no idea how much I was holding back.'",
        ),
    ),
    ArticleStory(
        slug="doubles-of-strangers",
        section="tennis",
        kicker="Ostrand Open",
        title="The doubles final nobody entered",
        standfirst="Four alternates, two of them coaches, one of them on holiday. Centre Court, three o'clock.",
        author="Theo Marchetti",
        hours_ago=34,
        paragraphs=(
            "The draw for the men's doubles began the week with thirty-two teams and a stomach bug. By Thursday the"
            " tournament had used every name on its list of alternates and had begun to walk round the players'"
            " restaurant with a clipboard.",
            "Which is how Jonas Ekberg, in Ostrand to see an aunt, comes to be in a final with a man he met on Tuesday."
            " They share no language beyond the score. They have not lost a set.",
        ),
    ),
    ArticleStory(
        slug="harbour-dinghies-record",
        section="sailing",
        kicker="Youth",
        title="Two hundred dinghies, one harbour, no collisions (almost)",
        standfirst="The largest youth regatta on the coast was won by a girl who had come to watch her brother.",
        author="Freya Tolliver",
        hours_ago=40,
        paragraphs=(
            "The start line at Port Ellery is a kilometre long, and at noon on Saturday it was still too short. The"
            " general recall, the second general recall and the sandwich break all passed off without injury.",
            "Mina Castellan, twelve, had borrowed a boat because it was there. She won four of the five races and in"
            " the fifth gave way to a seal. Her brother was ninth, and is said to be taking it well, considering.",
        ),
    ),
)

MATCHES: Final = (
    MatchStory(
        "Coast League",
        "Harrow Bay",
        "Port Ellery",
        63,
        (GoalStory(12, "away", "Dufresne"), GoalStory(41, "home", "Abara"), GoalStory(88, "home", "Weir")),
    ),
    MatchStory(
        "Coast League",
        "Vale Athletic",
        "Stonewick Town",
        21,
        (GoalStory(9, "home", "Lund"), GoalStory(33, "away", "Petrov"), GoalStory(90, "home", "Castro")),
    ),
    MatchStory(
        "Coast League",
        "Northgate Rovers",
        "Kilmarsh United",
        88,
        (GoalStory(5, "home", "Rask jr."), GoalStory(17, "home", "Imani"), GoalStory(58, "away", "Okoye")),
    ),
    MatchStory("Coast League", "Brindle City", "Eastmoor", 40, (GoalStory(71, "away", "Sandoval"),)),
    MatchStory(
        "Island Cup",
        "Skerry Thistle",
        "Lantern Point",
        5,
        (
            GoalStory(2, "home", "Moss"),
            GoalStory(30, "away", "Ferreira"),
            GoalStory(49, "away", "Ferreira"),
            GoalStory(64, "home", "Moss"),
            GoalStory(83, "home", "Adeyemi"),
        ),
    ),
    MatchStory("Island Cup", "Old Quay", "Saltworks", 104, (GoalStory(26, "home", "Brandvold"),)),
)

COMMENTS: Final = (
    CommentStory("harrow-bay-go-top", "sam", "I was in the car park. He went past me. He was laughing."),
    CommentStory("harrow-bay-go-top", "noor", "Off the shoulder! Give the shoulder the captaincy."),
    CommentStory("harrow-bay-go-top", "ravi", "As an Ellery supporter I had already left, so I can enjoy this."),
    CommentStory("sprint-train-derailed", "ravi", "Eleven seasons. I am not crying, it is the crosswind."),
    CommentStory("kilmarsh-ground-for-sale", "sam", "Played there once. Took a throw-in that went out for a corner."),
    CommentStory("mara-voss-800", "noor", "Joan Pell taught me long division. Not surprised by any of this."),
    CommentStory("becalmed-off-skerry", "ravi", "Kestrel's cook reports excellent visibility of the start line."),
)

READERS: Final = (
    ReaderStory("sam", "Sam from Row F"),
    ReaderStory("noor", "Noor"),
    ReaderStory("ravi", "Ravi K."),
)

LOAD_READERS: Final = 80
"""How many accounts are kept ready for the load generator, which has to have somebody to log in as."""


def load_reader(number: int) -> ReaderStory:
    """Return the account that the load generator's client of this number uses."""
    return ReaderStory(f"fan-{number:02d}", f"Fan number {number}")


def all_readers() -> tuple[ReaderStory, ...]:
    """Return every account that a fresh site has."""
    return (*READERS, *(load_reader(number) for number in range(LOAD_READERS)))
