"""Adventures: a mystery, a strange noise, a wish, a journey, a rescue from water, a show."""

from __future__ import annotations

from train_bundled.corpus.plots.beats import joy, last_line, tears, thanks
from train_bundled.corpus.teller import Teller, openings

_MYSTERIES = (
    ("the honey", "sticky tracks", "a family of ants"), ("one red sock", "a trail of wool", "a bird who built a nest"),
    ("the cookies", "a line of crumbs", "a hungry little mouse"), ("the biggest apple", "tiny tooth marks", "a very small hedgehog"),
    ("the cheese", "small footprints in the flour", "a shy rat with five babies"), ("the shiny spoon", "a black feather", "a thieving magpie"),
    ("the lettuce", "a silver trail", "three slow snails"), ("the birthday candles", "drops of wax", "a forgetful grandmother"),
    ("the straw hat", "a bit of chewed straw", "the goat from next door"), ("the butter", "paw prints on the table", "the fat neighbor cat"),
    ("the blue paint", "blue spots on the stairs", "a little brother with blue hands"), ("the nuts", "empty shells on the path", "a squirrel with full cheeks"),
)  # fmt: skip


def mystery(t: Teller) -> None:
    """Something vanishes; clues lead to the thief, who had a reason."""
    what, clue, thief = t.rng.choice(_MYSTERIES)
    t.let(what=what, clue=clue, thief=thief)
    t.friend()
    openings(t)
    t.tell(
        '{day}, {what} [was gone|had disappeared|was missing]. "[What a strange thing|This is a mystery|I will find out who did it]," said {h}.'
    )
    t.tell(
        '{h} called {h.his} friend. It was {f.intro}. "[We are detectives now|Let us look for clues|Bring a magnifying glass]," said {h}. [They crawled over the floor.|They looked under the rug.|They wrote everything into a notebook.]'
    )
    t.paragraph()
    t.tell(
        '"[Look|Aha|Come here]!" {cried} {f}. "[I have found something|Here is a clue]." It was {clue}. They followed it [around the corner|out of the door|through the hall], [past the well|over the wall|under the table] and [along the hedge|down the steps|behind the shed].'
    )
    t.perhaps('[{f} held {f.his} breath.|"Sh!" said {h}.|Something was rustling.|They tiptoed closer.]')
    t.tell(
        '[And there|In the corner|Behind an old box] sat {thief}. "[So it was you|We have found you|Caught]!" said {h}.'
    )
    t.paragraph()
    t.tell(
        '[The thief looked very sorry.|The thief turned red.|There was a small, sad voice.] "[I was so hungry|I did not know that it was yours|I only wanted to borrow it]. [Please forgive me|I am sorry]."'
    )
    t.tell(
        '[{h} was not angry anymore.|{h} and {f} looked at each other and laughed.|{h} thought for a moment.] "[Next time, just ask|You can have half of it|Let us share]," said {h}. [So the case was solved.|The detectives had done their work.|The mystery was over.]'
    )
    joy(t)
    t.ending(
        "wanted to find out who took {what}",
        "found {thief} with {f} and forgave",
        "[proud|clever|happy]",
        "it is better to ask than to take",
    )
    t.facts.theme = "a mystery"
    last_line(t)


_NOISES = (
    ("Tap, tap, tap", "a branch at the window"), ("Hoo, hoo", "a lonely owl on the roof"), ("Scratch, scratch", "a kitten that wanted to come in"),
    ("Drip, drop", "a tap that nobody had closed"), ("Creak, creak", "the old rocking chair in the wind"), ("Bump, bump", "a ball that rolled down the stairs"),
    ("Rumble, rumble", "a very hungry stomach"), ("Squeak, squeak", "a baby mouse in a boot"), ("Snore, snore", "grandfather on the sofa"),
    ("Ding, ding", "a forgotten clock in a box"), ("Rattle, rattle", "a loose window"), ("Buzz, buzz", "a bee in a jar"),
)  # fmt: skip


def noise(t: Teller) -> None:
    """A noise in the night is harmless."""
    sound, cause = t.rng.choice(_NOISES)
    t.let(sound=sound, cause=cause)
    t.friend()
    openings(t)
    t.tell(
        '[One night|One dark night|One stormy night], {h} and {h.his} friend, {f.intro}, [were already in bed|had a sleepover|slept in a tent]. Then they heard something. "{sound}!"'
    )
    t.tell(
        '"[What was that|Did you hear that]?" whispered {f}. "[Maybe it is a monster|It could be a ghost|Perhaps it is a giant]," said {h}. [They pulled the blanket over their heads.|They held on to each other.|{f.his} teeth chattered.] "{sound}!" It [came closer|was louder now|did not stop].'
    )
    t.paragraph()
    t.tell(
        '"[We have to look|I will find out what it is|Come on, we are two]," said {h}. [{h} took a flashlight|{h} lit a candle|{h} picked up a pillow], and {f} took [a wooden spoon|an umbrella|a frying pan]. [Step by step|On tiptoe|Very slowly], they followed the noise.'
    )
    t.tell(
        '[The floor creaked.|Their shadows were huge.|The hall seemed very long.] "{sound}!" {h} [opened the door|pulled the curtain aside|counted to three]. And what was it? It was only {cause}!'
    )
    t.paragraph()
    t.tell(
        '[They looked at each other and began to laugh.|{f} let out a long breath.|"Oh!" said {h}.] "[What a terrible monster|And I was so scared|We are silly]!" {cried} {f}. [They laughed until their bellies hurt.|Then they made hot chocolate.|Soon they were fast asleep.]'
    )
    t.ending(
        "heard a strange noise at night",
        "found out with {f} that it was only {cause}",
        "[brave|relieved|glad]",
        "many things are less scary when you look at them",
    )
    t.facts.theme = "a strange noise"


def wish(t: Teller) -> None:
    """A magic helper grants a wish that turns out otherwise."""
    giver = t.rng.choice(
        (
            "a tiny fairy",
            "a golden fish",
            "an old wizard",
            "a talking frog",
            "a little star",
            "a silver owl",
            "a friendly ghost",
            "a spirit in a bottle",
        )
    )
    want, result = t.rng.choice((
        ("to be as big as a tree", "did not fit into the house anymore"), ("to fly like a bird", "could not find the way down"),
        ("to have a mountain of candy", "soon had a terrible stomach ache"), ("to be invisible", "was alone, because nobody could see {h.him}"),
        ("that it would never be night", "grew so tired, but could not sleep"), ("to be a king", "had to sit on a hard throne all day"),
        ("to understand every language", "heard even the flies complain"), ("that everything would turn to gold", "could not eat a golden apple"),
        ("to be as small as a bee", "was chased by a hungry bird"), ("that it would snow in summer", "shivered in thin clothes"),
        ("to be the only one in the world", "had nobody to talk to"), ("to have a thousand toys", "could not find the bed anymore"),
    ))  # fmt: skip
    t.let(giver=giver, want=want, result=result, the="the " + giver.split(" ", 1)[1])
    t.place("out")
    openings(t)
    t.tell(
        '{day}, {h} was {p.at} and [helped|freed|saved] {giver}. "[To thank you, I will grant you one wish|You may make a wish|One wish is yours]," said {the}. [{h} did not have to think for long.|{h.his} eyes grew wide.|What luck!] "I wish {want}!"'
    )
    t.tell(
        "[There was a flash.|Poof!|A cloud of silver dust rose up.] [And so it was.|The wish came true.|At first it was great fun.] [{h} laughed and shouted.|{h} was very proud.|] But [soon|then|after an hour] {h.he} {result}."
    )
    tears(t)
    t.paragraph()
    t.tell(
        '"[This is not what I wanted|I wish I had never wished|Please, help me]!" {cried} {h}. [There stood {the} again.|{the} heard it and came back.] "[Do you want to give the wish back|Have you learned something]?" asked {the}. "[Yes, please|Oh yes]," {said} {h}.'
    )
    t.tell(
        "[Poof|Swish|Zing]! Everything was [as before|just as it had been]. [{h} looked down at {h.himself}.|{h} ran home as fast as {h.he} could.|{h} hugged the first tree {h.he} saw.] [How good it was to be {h.himself}!|Home had never been so lovely.|Never again would {h.he} wish so fast.]"
    )
    t.ending(
        "wished {want}, but {result}",
        "gave the wish back",
        "[glad|relieved|happy]",
        "it is good to be just as you are",
    )
    t.facts.theme = "magic"
    last_line(t)


def journey(t: Teller) -> None:
    """Two travel to find out something."""
    goal, found = t.rng.choice((
        ("the end of the rainbow", "a field of flowers in seven colors"), ("the moon", "the moon in a quiet lake"),
        ("the highest tree", "a tree with room for a hundred nests"), ("the place where the sun sleeps", "the wide sea, red and gold"),
        ("the house of the wind", "a valley where the grass never stood still"), ("a hidden waterfall", "a waterfall behind a green curtain of leaves"),
        ("the oldest stone", "a stone with strange pictures on it"), ("the sweetest berries", "a bush full of dark sweet berries"),
        ("a lost city", "old walls covered with vines"), ("the lighthouse", "a lamp as big as a house"),
        ("the source of the river", "a little spring between two rocks"), ("a dinosaur bone", "a bone longer than a door"),
    ))  # fmt: skip
    vehicle = t.rng.choice(
        (
            "on foot",
            "in a small boat",
            "on an old bike with two seats",
            "in a hot-air balloon",
            "with a donkey cart",
            "on a raft",
            "by train",
            "on two ponies",
        )
    )
    t.let(goal=goal, found=found, vehicle=vehicle)
    t.friend()
    openings(t)
    t.tell(
        '{h} had a dream: {h.he} wanted to find {goal}. {day}, {h.he} [packed a bag|took a map and some bread|said goodbye]. "[I am coming with you|Take me along, please]!" said {h.his} friend. It was {f.intro}. So they set out, {vehicle}.'
    )
    t.paragraph()
    t.tell(
        "They traveled [over hills and through valleys|for three days|past fields and farms]. [The first night, they slept under the stars.|A farmer gave them milk.|They sang to pass the time.] [It was not always easy.|Sometimes they were tired.|Once, they took the wrong way.]"
    )
    t.tell(
        "{trouble}",
        trouble="[Then|On the second day], [a storm came up, and they hid in a cave|a river blocked the way, and they built a bridge of logs|they ran out of food, and {f} found wild berries|thick fog came down, and they held hands].",
    )
    t.tell(
        '"[Shall we turn back|Are we there yet|Do you think we will ever find it]?" asked {f}. "[Just one more hill|Not yet, but soon|We are so close]," {said} {h}.'
    )
    t.paragraph()
    t.tell(
        "[And then|At last|In the evening], they saw it. [Before them lay|There it was:|They had found] {found}. [They stood still and said nothing.|It was more beautiful than any dream.|{f} whistled softly.]"
    )
    t.tell(
        '"[It was worth every step|I will never forget this|We did it]," said {h}. [They drew a picture of it.|They took one small pebble home.|They stayed until the stars came out.] [The way home seemed much shorter.|And the best part was that they had seen it together.|]'
    )
    joy(t)
    t.ending(
        "wanted to find {goal}",
        "traveled far with {f} and found {found}",
        "[happy|proud]",
        "the journey is half the joy",
    )
    t.facts.theme = "a journey"


def drifting(t: Teller) -> None:
    """A boat drifts off and is brought back."""
    t.elder()
    t.friend()
    t.facts.elder = None
    t.place("water")
    openings(t)
    t.tell(
        '{day}, {h} found [an old boat|a small raft|a wooden tub] {p.at}. ["I am a captain!" {cried} {h}.|The water glittered in the sun.|{h} climbed in at once.|{h} only wanted to sit in it.] But [the rope came loose|nobody held the rope|a wave lifted it up], and [slowly it drifted away|off it went|the water carried it out].'
    )
    t.tell(
        '"[Help|Oh no|Stop]! [I cannot swim|I have no oars|The boat will not stop]!" {cried} {h}. The shore grew [smaller and smaller|tiny]. [The waves rocked the boat.|Cold water splashed in.|A gull laughed above.]'
    )
    t.paragraph()
    t.tell(
        '[Luckily|By good luck], someone saw it from the shore. It was {f.intro}. {f} [did not wait|thought fast|did not lose a second]. {f.he} [threw a long rope|pushed a log into the water|called three strong ducks|jumped into another boat] and cried, "[Hold on tight|Do not be afraid|I am coming]!"'
    )
    t.tell(
        "{h} [caught it with both hands|held on|stretched out as far as possible]. [Pull, pull|Heave, ho|One, two, three]! Bit by bit, the boat came [closer|back]. [At last|Finally], {h} stood on dry land, [wet and shaking|with wobbly knees|safe and sound]."
    )
    t.paragraph()
    thanks(t)
    joy(t)
    t.perhaps(
        "[They sat by a fire until {h} was dry.|{h} promised never to go out alone again.|That summer, {f} taught {h.him} how to swim.|They tied the boat up with three knots.]"
    )
    t.ending("drifted away in a boat", "came back because {f} helped", "[safe|thankful]", "never go on the water alone")
    t.facts.theme = "a rescue"
    last_line(t)


def show(t: Teller) -> None:
    """A performance goes wrong and is saved."""
    t.thing("music")
    t.elder()
    openings(t)
    t.tell(
        "Soon there would be a big [concert|show|party] [in the village|at school|in the barn], and {h} wanted to play {h.his} {t.full}. [Every day {h.he} practiced.|The neighbors covered their ears.|{h.he} practiced until late.]"
    )
    t.tell(
        "{day}, it was time. [The curtain opened.|The hall was full.|All the seats were taken.] {h} looked at all the [faces|eyes|people]. [{h.his} hands were cold|{h.his} mouth was dry|{h.his} knees felt like jelly]. {h.he} [began to play|took the {t}], but [the first sound was wrong|everything came out wrong|{h.he} forgot how to begin]."
    )
    t.perhaps("[Someone coughed.|Somebody giggled.|It was very quiet.]")
    tears(t)
    t.paragraph()
    t.tell(
        '[Then {h} saw {e} in the first row|There was {e}, right beside the stage]. [{e} nodded|^{e} gave {h.him} a wink|^{e} began to clap a beat]. "[Start again|You can do it|Just play for me]," whispered {e}. {h} [closed {h.his} eyes|took a deep breath|counted to four] and [started again|tried once more].'
    )
    t.tell(
        "[This time|Now] it [sounded wonderful|went well|was like magic]. [The music filled the whole room.|Feet began to tap.|Even the mice came out to listen.] [When it was over|At the end], everyone [clapped and cheered|stood up|called for more]."
    )
    joy(t)
    t.ending(
        "was nervous and played the {t} wrong",
        "tried again because {e} helped",
        "[proud|happy]",
        "you can always start again",
    )
    t.facts.theme = "music"
    last_line(t)


PLOTS = {"mystery": mystery, "noise": noise, "wish": wish, "journey": journey, "drifting": drifting, "show": show}
