"""Stories that turn on others: a newcomer, a hurt bird, a fear, the way home."""

from __future__ import annotations

from train_bundled.corpus.plots.beats import joy, last_line, sights, tears, thanks, weather
from train_bundled.corpus.teller import Teller, openings


def newcomer(t: Teller) -> None:
    """Someone shy and new finds a friend."""
    t.friend()
    t.place()
    openings(t)
    t.tell(
        "{day}, {h} saw someone new {p.at}. It was {f.intro}. ^{f} [sat all alone|stood in a corner|looked at the ground]."
    )
    t.perhaps(
        "The others [played and laughed|ran around|took no notice], but nobody [spoke to|talked to|looked at] {f}."
    )
    t.tell(
        "[{h} remembered how it felt to be alone.|{h} felt sorry for {f.him}.|{h} wanted to be kind.] "
        '{h.he} walked over. "[Hello|Hi]! [I am {h}|My name is {h}]. [Who are you|What is your name]?"'
        if t.hero.named
        else '{h} walked over. "[Hello|Hi]! [Do you want to play|Would you like to be my friend]?" said {h}.'
    )
    t.paragraph()
    t.tell(
        '"[I am {f}|My name is {f}]," [whispered {f}|said {f} in a small voice]. "[I do not know anyone here|I just moved here|Everything is new to me]."'
        if t.facts.friend and t.facts.friend.named
        else '"[I do not know anyone here|Everything is new to me]," [whispered {f}|said {f} in a small voice].'
    )
    t.tell(
        '"[Now you know me|Then come with me|That is easy to change]!" {said} {h}. "[I will show you everything. Are you ready|Let us play a game. Do you like tag|Do you like {meal}]?"',
        meal=t.hero.food,
    )
    t.tell(
        "[They [ran around|played tag|built a tower|told jokes|drew pictures|climbed and jumped] until [the sun went down|they were out of breath|it was time for supper].|"
        "{h} showed {f} {p.sight}.|They shared {meal} and talked about everything.] [^{f} began to smile.|Soon {f} was not shy anymore.|They found out that they both loved {food}.]",
        meal=t.hero.food, food=t.rng.choice(("rain", "stars", "music", "funny stories", "puddles", "old songs")),
    )  # fmt: skip
    t.paragraph()
    t.tell(
        '"[Will you come back tomorrow|Are we friends now|Can we play again tomorrow]?" asked {f}. "[Of course|Yes|Every day]!" {cried} {h}.'
    )
    joy(t)
    t.ending("met {f}, who was new and lonely", "became friends with {f.him}", lesson="a kind word can make a friend")
    t.facts.theme = "friendship"
    last_line(t)


_SMALL_ANIMALS = (
    "bird", "butterfly", "beetle", "kitten", "duckling", "baby squirrel", "baby rabbit", "ladybug", "lizard",
    "baby hedgehog", "bumblebee", "little owl",
)  # fmt: skip


def rescue(t: Teller) -> None:
    """A small animal needs help."""
    t.place("out")
    small = t.rng.choice(_SMALL_ANIMALS)
    flies = small in {"bird", "butterfly", "ladybug", "bumblebee", "little owl"}
    free = (
        "[flew up into the sky|flew in a circle and away]"
        if flies
        else "[ran into the grass|hopped away|ran off on quick feet]"
    )
    t.let(small=small, wing="wing" if flies else "leg", free=free)
    t.elder()
    openings(t)
    t.paragraph()
    t.tell(
        "{day}, {h} [heard|noticed] a [tiny|soft|small|sad] [sound|cry] {p.at}. [What was that?|{h.he} looked around.|{h.he} followed the sound.]"
    )
    t.tell(
        "A {small} [lay on the ground|was sitting {p.spot}|was caught in [a net|some thorns|an old string]]. Its {wing} was [hurt|bent|stuck], and it [could not move|was shaking|looked afraid]."
    )
    t.tell('"[Poor little thing|Do not be afraid|Oh, you poor {small}]," [whispered|said] {h}. "I will help you."')
    t.paragraph()
    t.tell(
        "[Very gently|Carefully|Slowly], {h} [picked up the {small}|lifted it up] and carried it to {e}. "
        '"[Can we help it|What should we do]?" asked {h}. "[Let us make a warm bed|It needs rest and water|We must be very gentle]," {said} {e}.'
    )
    t.tell(
        "[They put the {small} in a box with [soft grass|a warm cloth|cotton].|{h} made a little bed of [leaves|moss|wool].] "
        "[Every day|Each morning|For a whole week], {h} brought it [water and crumbs|fresh water|something to eat] and [sang to it|talked to it|sat beside it]."
    )
    t.paragraph()
    t.tell(
        "[After a few days|One morning|At last], the {small} was [well|strong|healthy] again. {h} [opened the box|carried it outside]. The {small} {free}. "
        "{h} [waved|was a little sad, but also glad|watched until it was gone]."
    )
    t.perhaps(
        "[The next spring, the {small} came back to say hello.|Sometimes it came back to visit.|{e} put an arm around {h.him}.]"
    )
    t.ending(
        "found a {small} that was hurt", "took care of it until it was well", lesson="even a small kindness matters"
    )
    t.facts.theme = "kindness"
    last_line(t)


_FEARS = (
    ("the dark", "The room was full of shadows.", "a small lamp", "shadows are only the shape of things"),
    (
        "thunder",
        "Boom! The thunder rolled over the roof.",
        "a warm blanket",
        "thunder is only the clouds bumping together",
    ),
    ("deep water", "The water looked dark and cold.", "a shiny swimming ring", "water carries you if you trust it"),
    ("high places", "The ladder went up and up.", "a strong rope", "one step at a time is enough"),
    ("loud noises", "Bang! Something fell down with a crash.", "a pair of earmuffs", "a noise cannot bite"),
    ("dogs", "A big dog came around the corner.", "a tasty bone", "a wagging tail means hello"),
    ("spiders", "A spider sat right above the bed.", "a jar with a lid", "the spider was more afraid than anyone"),
    ("speaking in front of others", "Everyone was looking.", "a lucky button", "everyone is nervous at first"),
    ("the doctor", "The waiting room smelled of soap.", "a sticker with a star", "the doctor only wants to help"),
    ("the wind", "The wind howled around the house.", "a soft pillow", "the wind only wants to sing"),
)


def fear(t: Teller) -> None:
    """The hero is afraid of something and grows braver."""
    what, moment, aid, insight = t.rng.choice(_FEARS)
    t.let(what=what, moment=moment, aid=aid, insight=insight)
    t.elder()
    openings(t)
    t.tell(
        "[But there was one problem: {h} was afraid of {what}.|Only one thing was hard for {h}: {h.he} was afraid of {what}.|{h} had a secret. {h.he} was afraid of {what}.]"
    )
    t.paragraph()
    t.tell(
        "{day}, it happened. {moment} [{h} began to shake.|{h.his} knees trembled.|{h} closed {h.his} eyes.|{h} wanted to run away.]"
    )
    t.tell(
        '"[I am scared|I cannot do it|Help]," [whispered|said|cried] {h}. [^{e} sat down beside {h.him}.|^{e} held {h.him} tight.|^{e} heard it and came.] '
        '"[I was afraid of {what}, too, when I was small|Being brave means to try even when you are afraid|You are not alone]," said {e}. '
        '[^{e} gave {h.him} {aid}.|"Take this," said {e}, and gave {h.him} {aid}.] "[Remember|You see]: {insight}."'
    )
    t.paragraph()
    t.tell(
        "{h} took [a deep breath|three deep breaths]. [{h.he} counted to ten.|{h.he} thought of something nice.|{h.he} opened one eye, then the other.] "
        "[Slowly|Little by little|Step by step], the fear became [smaller|as small as a pea|quiet]."
    )
    t.tell(
        '"[I did it|It is not so bad|I am not afraid anymore]!" {cried} {h}. "[I knew you could|I am so proud of you|Well done]," {said} {e}.'
    )
    t.tell(
        "[From then on, {h} was much braver.|{h} felt as tall as a tree.|{h} was proud all day long.|And the next time, it was already easier.]"
    )
    t.ending(
        "was afraid of {what}",
        "took a deep breath and was brave, because {e} helped",
        "[proud|brave]",
        lesson="being brave means trying even when you are afraid",
    )
    t.facts.theme = "being brave"
    last_line(t)


def wayhome(t: Teller) -> None:
    """The hero gets lost and finds the way home."""
    t.place("wild")
    t.friend()
    openings(t)
    t.paragraph()
    t.tell(
        "{day}, {h} went {p.to} to [look for berries|follow a butterfly|have an adventure|pick flowers|collect stones|explore]."
    )
    weather(t)
    sights(t)
    t.tell(
        "[{h.he} went deeper and deeper.|{h.he} did not look where {h.he} was going.|{h.he} walked on and on.] "
        "[Soon|After an hour|Before long], everything looked [strange|the same|different]. {h} was lost! [It began to get dark.|A cold [wind|rain|fog] came.|]"
    )
    tears(t)
    t.paragraph()
    t.tell(
        '"[Hello? Is anyone there|Can anyone help me|Which way is home]?" {cried} {h}. [Then there was a rustle.|Something moved in the dark.|A voice answered.] It was {f.intro}. '
        '"[I know every path|I can show you the way|Follow me]," {said} {f}. "[Where do you live|What does your home look like]?" "I live {h.lives}," said {h}.'
    )
    t.tell(
        "They [crossed a stream|climbed over a log|followed the stars|walked past a tall rock|went through the bushes] and [sang a song|told stories|held on to each other] [so that they would not be afraid|to stay warm|on the way]. "
        "[At last|Finally|After a long walk], {h} saw [a light|smoke from a chimney|something {h.he} knew]. [It was home!|Home!]"
    )
    t.paragraph()
    thanks(t)
    t.tell(
        "[{h.his} family was so glad to see {h.him}.|Everyone hugged {h.him}.|There was {meal} for both of them.] [{f} stayed for supper.|{h} promised never to go so far alone again.|^{f} waved and went back.]",
        meal=t.hero.food,
    )
    t.ending(
        "got lost {p.at}",
        "found the way home with the help of {f}",
        "[safe|glad|happy]",
        lesson="do not go too far alone",
    )
    t.facts.theme = "finding the way home"
    last_line(t)


PLOTS = {"newcomer": newcomer, "rescue": rescue, "fear": fear, "wayhome": wayhome}
