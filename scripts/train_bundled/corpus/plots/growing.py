"""Stories in which the hero changes: learns, loses a race, tells a lie, is too proud, waits for sleep."""

from __future__ import annotations

from train_bundled.corpus.plots.beats import joy, last_line
from train_bundled.corpus.teller import Teller, openings

_SKILLS = (
    ("swim", "sank like a stone", "kicked with both legs", "swam across the pond"),
    ("whistle", "only blew spit", "made the lips very small", "whistled a whole song"),
    ("ride a bike", "fell into the hedge", "looked straight ahead", "rode all the way down the lane"),
    ("dance", "stepped on everyone's toes", "counted one, two, three", "twirled like a leaf"),
    ("read", "mixed up all the letters", "went slowly, word by word", "read a page out loud"),
    ("draw a horse", "drew something like a potato", "began with the round shapes", "drew a horse with a long mane"),
    ("skate", "landed on the ice with a bump", "bent both knees", "glided in a wide curve"),
    ("juggle", "dropped all three balls", "started with one ball", "juggled four plums"),
    ("tie a bow", "made a terrible knot", "made two loops like ears", "tied a perfect bow"),
    ("sing", "croaked like a rusty door", "took a big breath first", "sang so well that the birds grew quiet"),
    ("climb", "slid down again and again", "held on with both hands", "climbed to the very top"),
    ("play chess", "lost every game", "thought two moves ahead", "won against the old champion"),
    ("knit", "tangled all the wool", "went stitch by stitch", "knitted a long blue sock"),
    ("do a handstand", "toppled over", "leaned against the wall first", "stood upside down and counted to twenty"),
    ("tell jokes", "forgot the funny part", "practiced in front of a mirror", "made the whole room laugh"),
    ("row a boat", "went around in circles", "pulled both oars together", "rowed straight to the other side"),
)  # fmt: skip


def learning(t: Teller) -> None:
    """Practice makes a skill."""
    skill, failed, trick, success = t.rng.choice(_SKILLS)
    t.let(skill=skill, failed=failed, trick=trick, success=success)
    t.elder()
    openings(t)
    t.tell(
        "[More than anything, {h} wanted to {skill}.|{h} had one big wish: to {skill}.|All of {h.his} friends could {skill}, but {h} could not.]"
    )
    t.tell(
        "{day}, {h} tried. But {h.he} {failed}. {h.he} tried again and {failed} once more. [The others giggled.|{h.his} ears turned red.|It was hopeless.|]"
    )
    t.tell('"[I will never learn it|I give up|It is too hard for me]!" {cried} {h}.')
    t.paragraph()
    t.tell(
        '[{e} had been watching.|^{e} came over.|At home, {h} told {e} about it.] "[I needed a hundred tries|Nobody can do it the first time|Even I could not do it at first]. [Practice a little every day|The secret is to keep trying|Try it my way]," said {e}.'
    )
    t.tell(
        "So {h} practiced [in the morning and in the evening|every day after supper|for two weeks|even in the rain]. {h.he} {trick}. [It got a little better.|Sometimes it almost worked.|Some days were good and some were bad.] But {h} did not [stop|give up]."
    )
    t.paragraph()
    t.tell(
        "[Then came the big day.|And one day it happened.|Then, on a Sunday, something clicked.] {h} {success}! [Everyone clapped.|{e} clapped the loudest.|Nobody giggled now.|{h} could hardly believe it.]"
    )
    t.tell(
        '"[I can do it|Did you see that|I really did it]!" {cried} {h}. "[I knew it|You worked hard for this|Practice makes perfect]," {said} {e}.'
    )
    t.perhaps(
        "[Now {h} shows the little ones how to {skill}.|{h} went to bed with sore arms and a big smile.|And {h} was already thinking of the next thing to learn.]"
    )
    t.ending(
        "could not {skill}",
        "practiced every day and {success}",
        "[proud|happy]",
        "practice helps more than giving up",
    )
    t.facts.theme = "never giving up"


def race(t: Teller) -> None:
    """A race is won or lost, and a friend matters more."""
    contest = t.rng.choice(
        ("race", "boat race", "sled race", "sack race", "running race", "treasure hunt", "swimming race")
    )
    t.let(contest=contest)
    t.friend()
    openings(t)
    t.tell(
        "{day}, there was a big {contest} [in the village|by the lake|on the hill]. {h} wanted to win [the golden cup|the first prize|a basket of {h.food}]. {h.his} [rival|strongest rival] was {f.intro}."
    )
    t.tell(
        '"[I am the fastest|I will win|Nobody can beat me]!" {cried} {f}. [{h} said nothing.|{h} only smiled.|{h.his} heart beat fast.] "Ready, steady, go!"'
    )
    t.paragraph()
    t.tell(
        "{f} was in front. {h} was right behind. [Dust flew up.|The crowd cheered.|The flags were waving.] {turn}",
        turn="[But then|Suddenly], {f} [tripped and fell|slipped and hurt a foot|got tangled in a bush].",
    )
    if t.chance(0.6):
        t.tell(
            '{h} could [see the finish line|almost touch the prize]. [{h.he} could win now!|Just a few more steps!] But {h.he} [stopped|turned around]. "[Are you hurt|Can you stand up|Are you all right]?" asked {h}, and [helped {f.him} up|pulled {f.him} out].'
        )
        t.tell(
            "[Someone else won the cup.|The others ran past them.] {h} and {f} [walked to the finish together|came last, arm in arm|crossed the line side by side]. [And everyone clapped for them.|The crowd cheered louder than ever.]"
        )
        t.tell(
            '"[Why did you stop|Why did you not win]?" asked {f}. "[A friend is better than a cup|You needed help|There will be another race]," {said} {h}.'
        )
        t.ending(
            "saw {f} fall down in the {contest}",
            "stopped to help {f.him} and gave up the prize",
            "[glad|proud|happy]",
            "helping is better than winning",
        )
    else:
        t.tell(
            '{h} ran past. [Step by step,|With a last jump,] {h.he} reached the finish. [{h} had won!|First place!] But then {h.he} [looked back|thought of {f}]. {h} [went back|ran back] and helped {f.him} up. "[You were very fast|That was a good race|Bad luck]," said {h}. "[Let us share the prize|Next time you will win]."'
        )
        t.tell(
            '"[You are a good winner|That is kind of you|Well done]," {said} {f}. [They shared {h.food}.|They shook hands.|From then on they trained together.]'
        )
        t.ending(
            "wanted to win the {contest}",
            "won and shared the prize with {f}",
            "[proud|happy]",
            "a good winner is kind",
        )
    joy(t)
    t.facts.theme = "a contest"
    last_line(t)


_LIES = (
    ("broke the window with a stone", "It was the wind", "the window"), ("ate the whole birthday cake", "It was the dog", "the cake"),
    ("spilled ink on the carpet", "I was not even here", "the stain"), ("let the chickens out", "The gate opened by itself", "the chickens"),
    ("tore a page out of the big book", "It was already torn", "the page"), ("painted on the white wall", "It must have been a ghost", "the wall"),
    ("cracked the mirror in the hall", "It fell down alone", "the mirror"), ("forgot to feed the rabbit", "I did feed it", "the rabbit"),
    ("stepped on the new flowers", "It was a rabbit", "the flowers"), ("left the tap running", "It was raining inside", "the puddle"),
    ("ate all the cherries", "The birds took them", "the cherries"), ("knocked over the milk can", "A mouse pushed it", "the milk"),
)  # fmt: skip


def fib(t: Teller) -> None:
    """A lie weighs more than the truth."""
    deed, excuse, matter = t.rng.choice(_LIES)
    t.let(deed=deed, excuse=excuse, matter=matter)
    t.elder()
    openings(t)
    t.tell(
        "{day}, [by accident|without thinking|while {h.he} was alone], {h} {deed}. [{h.he} looked around.|{h.his} heart began to pound.|Oh dear!] Nobody had seen it."
    )
    t.tell(
        'Soon {e} came. "[Who did this|What happened here|Do you know something about this]?" asked {e}. [{h} looked at the floor.|{h} turned red.|{h} swallowed.] "[{excuse}|It was not me. {excuse}]," {said} {h}.'
    )
    t.paragraph()
    t.tell(
        "[But then|After that], {h} [could not sleep|could not eat|did not want to play]. {h.his} [stomach hurt|head was full of {matter}|chest felt heavy]. The lie [grew bigger and bigger|felt like a stone|would not leave {h.him} alone]."
    )
    t.tell(
        '[At last|In the end|The next morning], {h} [went to|knocked at the door of|ran to] {e}. "[I have to tell you something|I did not tell the truth|Please do not be angry]. [It was me|I did it]," [whispered|said|sobbed] {h}.'
    )
    t.paragraph()
    t.tell(
        '[{e} was quiet for a moment.|^{e} sighed.|{e} looked at {h.him} for a long time.] "[Thank you for telling me|That was brave of you|I am glad you told me the truth]," said {e}. "[Anyone can make a mistake|Now we can put it right|A lie makes it worse, the truth makes it better]."'
    )
    t.tell(
        "[Together they cleaned up.|{h} helped to put it right.|{h} worked all day to make up for it.|They hugged each other.] [{h} felt as light as a feather.|The stone in {h.his} chest was gone.|That night {h} slept well.]"
    )
    t.ending("{deed} and told a lie", "told the truth to {e}", "[light|glad|better]", "it is best to tell the truth")
    t.facts.theme = "telling the truth"


def pride(t: Teller) -> None:
    """Someone who needs nobody is glad of help."""
    trouble, rescue = t.rng.choice((
        ("fell into a deep hole", "let down a rope"), ("got stuck in the mud", "pulled with all might"),
        ("got caught in a net", "bit through the strings"), ("was stuck on a high rock", "built steps of stones"),
        ("got tangled in thorns", "bent the branches aside"), ("slipped into the cold river", "held out a long branch"),
        ("was locked in the shed", "found the key under a pot"), ("got stuck in a fence", "pushed the boards apart"),
    ))  # fmt: skip
    t.let(trouble=trouble, rescue=rescue)
    t.friend()
    t.place("out")
    openings(t)
    t.tell(
        "{h} thought that {h.he} was the [cleverest|strongest|fastest|bravest] {h.noun} [in the whole world|of all]. {h.his} neighbor was {f.intro}. [{h} often laughed at {f.him}|{h} never said hello to {f.him}|{h} made fun of {f.him}]."
    )
    t.tell(
        '{day}, {f} asked, "[Shall we go together|Can I come with you|Do you need help]?" "[I do not need anyone|You are much too slow|Go away, you are too small]!" {said} {h} and went {p.to} alone.'
    )
    t.paragraph()
    t.tell(
        '{h} [ran ahead|sang a proud song|did not watch out]. [Then|Crash! Then|Suddenly] {h.he} {trouble}. {h.he} pulled and pushed, but [it was no use|nothing helped|it only got worse]. "[Help|Help me, please|Is anyone there]!" {cried} {h}. [Nobody came.|It grew dark.|Hours went by.]'
    )
    t.tell(
        "At last, someone came. It was {f}! [{h} felt ashamed.|{h} did not dare to look up.] [But {f} did not laugh.|{f} did not say an angry word.] {f.he} {rescue}, and {h} was free."
    )
    t.paragraph()
    t.tell(
        '"[I was mean to you|I laughed at you|I am so sorry]. [And still you helped me|Please forgive me]!" said {h}. "[Everyone needs help sometimes|I would help anyone|That is all right]," {said} {f}.'
    )
    t.tell(
        "[From that day on, {h} never laughed at others.|They walked home together.|{h} shared {h.food} with {f}.|Now {h} always says hello first.]"
    )
    t.ending(
        "{trouble} and was all alone",
        "was saved by {f}, who helped",
        "[thankful|sorry and glad]",
        "nobody is too small to help",
    )
    t.facts.theme = "being too proud"
    last_line(t)


def sleepless(t: Teller) -> None:
    """Someone cannot sleep."""
    reason = t.rng.choice(("The moon was too bright.", "The bed felt too big.", "A branch tapped at the window.", "There were too many thoughts.",
                           "The wind sang in the chimney.", "The blanket was too hot.", "Tomorrow was a special day."))  # fmt: skip
    remedies = ["counted sheep", "drank a cup of warm milk", "looked at the stars", "sang a quiet song", "turned the pillow around",
                "told a story to a stuffed rabbit", "listened to the clock", "thought of the sea", "hugged a soft toy"]  # fmt: skip
    t.rng.shuffle(remedies)
    t.let(reason=reason, one=remedies[0], two=remedies[1])
    t.elder()
    openings(t)
    t.tell(
        "[One night|It was late, and|In the middle of the night], {h} could not sleep. {reason} [{h} turned left and right.|{h} opened one eye.|{h} yawned, but sleep did not come.]"
    )
    t.tell(
        "First {h.he} {one}. [It did not help.|No luck.|But {h.he} was still awake.] Then {h.he} {two}. [Still nothing.|That did not help, either.|Now {h.he} was even more awake.]"
    )
    t.paragraph()
    t.tell(
        '[Very softly|On tiptoe], {h} went to {e}. "I cannot sleep," whispered {h}. "[Come here|Let us look at the moon together|I will stay with you]," said {e}. [{e} hummed an old tune.|{e} told {h.him} about a sleepy little cloud.|They counted the stars.]'
    )
    t.tell(
        '[One star, two stars, three stars|The cloud drifted over hills and houses|The tune went up and down], and {h.his} eyes [closed|grew heavy|fell shut]. [{e} carried {h.him} back to bed.|{e} pulled up the blanket.|{e} smiled and blew out the candle.] "[Good night|Sweet dreams|Sleep well]," [whispered|said] {e}.'
    )
    t.ending(
        "could not sleep",
        "fell asleep because {e} helped",
        "[sleepy|safe]",
        "someone who stays with you is the best blanket",
    )
    t.facts.theme = "a sleepless night"


PLOTS = {"learning": learning, "race": race, "fib": fib, "pride": pride, "sleepless": sleepless}
