"""Stories that turn on a thing: lost, stuck, broken, shared, found, made."""

from __future__ import annotations

from train_bundled.corpus.plots.beats import joy, last_line, sights, tears, thanks, weather
from train_bundled.corpus.teller import Teller, openings

_LOVE = (
    "[^{h} had a {t.full}.|{h.his} [favorite thing|greatest treasure] was a {t.full}.|"
    "^{h} had a {t.full} and took it everywhere.|^{h} [got a {t.full} from {h.his} [aunt|grandpa|cousin]|found a {t.full} in a box].|"
    "More than anything, {h} loved {h.his} {t.full}.] "
    "[{h.he} [loved to|liked to] {t.use} [every day|all day long|in the sun|before breakfast|].|"
    "Every day, {h.he} {t.used}.|]"
)


def lost(t: Teller) -> None:
    """Something is lost and found again with help."""
    t.thing("small")
    t.place()
    openings(t)
    t.tell(_LOVE)
    t.paragraph()
    t.tell("{day}, {h} [went|walked|ran|hurried] {p.to} [with {h.his} {t}|and took the {t} along|].")
    weather(t)
    sights(t)
    t.tell(
        "[But when {h.he} [looked around|wanted to go home|reached for the {t}], the {t} was gone!|"
        "Suddenly {h.he} [noticed|saw] that the {t.full} was [missing|gone].|"
        "After a while, {h} could not find the {t} anywhere.|Then {h} stopped. Where was the {t}?]"
    )
    t.perhaps('"[Oh no|Oh dear]! [Where is my {t}|My {t} is gone|I have lost my {t}]!" {cried} {h}.')
    tears(t)
    t.paragraph()
    alone = t.chance(0.2)
    if alone:
        t.tell(
            "{h} [took a deep breath and thought|tried to remember]. [Where had {h.he} seen it last?|What had {h.he} done that day?] "
            "Step by step, {h.he} walked back."
        )
        t.perhaps("{h.he} looked [high and low|left and right|under every stone|behind every corner].")
        t.tell("And there, {p.spot}, lay the {t.full}!")
        t.ending("lost {h.his} {t.full}", "found it {p.spot}")
    else:
        companion = t.elder() if t.chance(0.45) else t.friend()
        if companion is t.facts.friend:
            t.tell(
                "[Just then, {f.intro} came [along|by].|{f.intro} heard {h.him} and came [closer|over].|"
                "A friend came by. It was {f.intro}.]"
                if t.facts.friend and t.facts.friend.named
                else "[Just then, {f.intro} came [along|by].|{f.intro} heard {h.him} and came over.]"
            )
        else:
            t.tell("[^{e} saw {h.him} and came over.|{h} ran to {e}.|^{e} was there, too.|{h} asked {e} for help.]")
        t.tell(
            '"[What is wrong|Why are you so sad|What happened|Can I help you]?" asked {c}. '
            '"I lost my {t.full}," {said} {h}. '
            '"[Do not worry|Do not cry|Cheer up]. [Let us look together|We will find it|I will help you look]," said {c}.'
        )
        t.tell(
            "They looked [everywhere|high and low|here and there]. [It was not under the [stones|leaves|chairs]. "
            "It was not behind the [wall|door|bushes].|They asked [a snail|two pigeons|an old man], but nobody had seen it.|]"
        )
        t.tell(
            '[Then {c} pointed. "Look, {p.spot}!"|At last {c} looked {p.spot}. "Here it is!"|'
            '"I see something {p.spot}!" said {c}.|Then {c} found the {t} {p.spot}.] '
            "[There it was, the {t.full}.|It was the {t.full}!|]"
        )
        t.ending("lost {h.his} {t.full}", "found it {p.spot} with the help of {c}")
        thanks(t)
    joy(t)
    t.perhaps(
        "[From then on, {h.he} always took good care of the {t}.|{h.he} held the {t} tight all the way home.|"
        "{h.he} held the {t} with both hands.|Now {h.he} keeps the {t} in a safe place.]"
    )
    t.facts.theme = "taking care of things"
    last_line(t)


def stuck(t: Teller) -> None:
    """The wind carries something into a tree."""
    t.thing("light")
    t.place("tree")
    helper_big = t.chance(0.5)
    openings(t)
    t.tell(_LOVE)
    t.paragraph()
    t.tell("{day}, {h} took the {t.full} {p.to}.")
    sights(t)
    t.tell(
        "[Suddenly|All at once|Then|Whoosh!] [a strong wind came|the wind blew hard|a big gust came] and [carried|blew|lifted] the {t} "
        "[up, up, up|high into the air|away]. It [landed|got stuck|was caught] in [a tall tree|the top of a tree|the branches of an old tree]."
    )
    t.tell(
        "{h} [jumped and jumped|reached as high as {h.he} could|threw a stick|stood on {h.his} toes|shook the tree], "
        "but [the {t} was too high|it was no use|the {t} did not come down|{h.he} could not reach it]."
    )
    tears(t)
    t.paragraph()
    if helper_big:
        t.elder()
        t.tell(
            "[^{e} came by and saw the {t} in the tree.|{h} ran to get {e}.|Soon {e} came along.] "
            '"[I have an idea|Wait here|Leave it to me]," said {e}. [^{e} came back with|^{e} brought] a '
            "[long ladder|long stick|broom|rake] and [gently|carefully|slowly] [got|pulled|pushed] the {t} [down|out of the branches]."
        )
        t.ending("could not get {h.his} {t.full} out of a tree", "got it back because {e} helped")
    else:
        t.friend()
        t.tell(
            '{f.intro} [was watching|looked up|came by]. "[I can climb|I am good at climbing|I will get it]!" {cried} {f}. '
            "[Up and up|Branch by branch|Slowly and carefully] {f} climbed. {f.he} [shook the branch|reached out|gave a little push], and the {t} "
            "[fell|floated|sailed] down [to the ground|into {h.his} arms]."
        )
        t.ending("could not get {h.his} {t.full} out of a tree", "got it back because {f} climbed up")
    thanks(t)
    joy(t)
    t.tell(
        "[Then {h} and {c} {t.used} together.|They [played|laughed] together until [the sun went down|it was time to go home].|"
        "{h} let {c} hold the {t} for a while.|After that, {h} held on to the {t} very tight.]"
    )
    t.facts.theme = "helping"
    last_line(t)


def broken(t: Teller) -> None:
    """Something breaks and is mended."""
    t.thing("fragile")
    t.elder()
    openings(t)
    t.tell(_LOVE)
    t.paragraph()
    t.tell(
        "{day}, [{h} [tripped over a [stone|root|step|rug]|was not careful|ran too fast|slipped] and the {t} fell down|"
        "the {t} fell [off the table|from the shelf|out of {h.his} hands]|{h} bumped into [the wall|a chair|the fence] and dropped the {t}]. "
        "[Crack|Crash|Bang|Snap]! [It broke in two|A piece came off|It was broken|It did not work anymore]."
    )
    tears(t)
    t.perhaps('"[Now I can never {t.use} again|It is all my fault|My poor {t}]," [said|sobbed|whispered] {h}.')
    t.paragraph()
    t.tell(
        "[^{e} heard {h.him} and came.|{h} took the pieces to {e}.|{h} showed the broken {t} to {e}.] "
        '"[Let me see|Hm, let us see|Do not cry]," said {e}. "[We can fix it|Broken things can be mended|I think I can mend it] with '
        '[some glue|a little string|a nail and a hammer|a bit of tape|a new screw|some patience]." '
    )
    t.tell(
        "[They worked [all afternoon|for an hour|side by side] at the kitchen table.|^{h} held the pieces, and {e} [worked slowly|did the rest].|"
        "First they cleaned the pieces. Then they put them together.] [At last|Finally|In the end], the {t} was [whole again|as good as new|fixed]."
    )
    t.perhaps(
        "[There was a small line where it had broken, but {h} liked it even more.|You could hardly see the crack.|It looked a little funny, but it worked.]"
    )
    thanks(t)
    joy(t)
    t.tell(
        "[{h} {t.used} [again|right away|all evening].|Soon {h} could {t.use} again.|From then on, {h.he} was more careful.]"
    )
    t.ending("broke {h.his} {t.full}", "mended it together with {e}", lesson="broken things can often be mended")
    t.facts.theme = "fixing a mistake"
    last_line(t)


def shared(t: Teller) -> None:
    """Two want the same thing and learn to share it."""
    t.thing("toy")
    t.place("out")
    t.friend()
    openings(t)
    t.tell(_LOVE)
    t.paragraph()
    t.tell("{day}, {h} was {p.at} when {f.intro} came [by|along|over].")
    t.tell(
        '"[Can I play, too|May I have a turn|Can I {t.use}, too]?" asked {f}. "[No! It is mine|No, go away|I do not want to share]!" {said} {h}.'
    )
    t.tell("^{f} [walked away|turned around|sat down on the ground] and looked {sad}.")
    t.tell(
        "{h} {t.used} alone. But [it was not much fun|soon it was boring|something was wrong]. "
        "[There was nobody to laugh with.|{h.he} kept looking at {f}.|{h.he} felt a little lonely.|]"
    )
    if t.chance(0.4):
        t.elder()
        t.tell(
            "[^{e} had seen it all|^{e} sat down beside {h.him}]. "
            '"[A {t} is more fun with two|Sharing makes joy twice as big|If you share, you will have a friend]," said {e}. {h} thought about it.'
        )
    else:
        t.tell(
            '[{h} thought for a while.|"That was not nice of me," thought {h}.|{h} remembered how it feels to be left out.]'
        )
    t.paragraph()
    t.tell(
        "[{h.he} went to {f}|{h.he} ran after {f}] and held out the {t.full}. "
        '"[I am sorry|Sorry]. [You can have a turn|Let us play together|Do you want to try]," said {h}. {f.his} face lit up. "[Really|Thank you|Yes, please]!" {cried} {f}.'
    )
    t.tell(
        "[They took turns all afternoon.|First {f} had a turn, then {h}.|They {t.used} together until [evening|it got dark|they were tired].] "
        "[It was twice as much fun.|They laughed and laughed.|Nobody was lonely anymore.]"
    )
    t.perhaps(
        "[From then on, they were best friends.|{h} had learned that sharing is fun.|The next day, {f} brought {food} and shared it with {h}.]",
        food=t.facts.friend.food if t.facts.friend else "",
    )
    t.ending("did not want to share {h.his} {t.full}", "shared it with {f}", lesson="sharing makes things more fun")
    t.facts.theme = "sharing"
    last_line(t)


def gift(t: Teller) -> None:
    """The hero makes a present."""
    t.thing("made")
    t.friend()
    openings(t)
    t.tell(
        "[^{h} had a good friend, {f.intro}.|{h.his} best friend was {f.intro}.] "
        "[{f.his} birthday was coming.|Soon it would be {f.his} birthday.|Tomorrow was {f.his} birthday.|^{f} had been sick for a week.]"
    )
    t.tell(
        '"[I want something special for {f.him}|I need a present for {f.him}]!" thought {h}. '
        "[{h.he} had no money.|{h.his} piggy bank was empty.|The shop was closed.|] "
        '[Then {h.he} had an idea.|Then {h.his} eyes began to shine.] "I will make a {t.full}!"'
    )
    t.paragraph()
    t.tell(
        "[{h} looked for [paper and glue|wood and string|cloth and thread|paint and a brush].|{h} got some [wood|paper|cloth|wire] and a pot of paint.] "
        "[{h.he} worked all [day|night|morning].|It was hard work.|{h.he} cut and glued and painted.] "
    )
    t.perhaps(
        "[The first one [fell apart|was too small|looked silly], so {h.he} tried again.|{h.his} fingers were sticky, but {h.he} did not stop.|"
        "Paint got on {h.his} nose and on the floor.]"
    )
    t.tell(
        "[At last it was ready|Finally it was done|In the evening it was finished]: a {t.full}. [It was not perfect, but it was made with love.|{h.he} wrapped it in [paper|a leaf|a cloth] with a bow.]"
    )
    t.paragraph()
    t.tell(
        '{h} gave it to {f}. "[Did you make this yourself|Is this for me|Oh, a {t.full}]?" asked {f}. "[Yes|Yes, just for you]," {said} {h}. '
        '"[I love it|It is the best present of all|It is wonderful]!" {cried} {f} and [hugged {h}|gave {h} a big hug|{f.motion}].'
    )
    joy(t)
    t.ending(
        "needed a present for {f}",
        "made a {t.full} and gave it to {f.him}",
        "[happy|proud]",
        lesson="a present made with love is the best",
    )
    t.facts.theme = "giving"
    last_line(t)


def treasure(t: Teller) -> None:
    """The hero finds something that belongs to someone else."""
    t.thing("treasure")
    t.place()
    t.elder() if t.chance(0.5) else t.friend()
    openings(t)
    t.paragraph()
    t.tell("{day}, {h} [was playing|was walking|went for a walk] {p.at}.")
    weather(t)
    t.tell(
        "[Something shiny lay|Something was hidden|{h.he} saw something strange] {p.spot}. [{h} bent down.|{h} came closer.|What could it be?|] "
        "It was a {t.full}! "
        '"[How beautiful|What luck|Wow]!" {cried} {h}. "[I will keep it|Now it is mine|Finders keepers]!"'
    )
    t.paragraph()
    t.tell(
        "On the way home, {h.he} [met|saw] {c.intro}. ^{c} looked {sad}. "
        '"[What is the matter|Why are you sad]?" asked {h}. "I lost my {t.full}," {said} {c}. '
        '"[My grandmother gave it to me|It brings me luck|I have had it for years|It was a present]."'
    )
    t.tell(
        "{h} [put {h.his} hand in {h.his} pocket|looked at the ground|felt hot and cold]. [{h.he} wanted to keep the {t} so much.|Nobody had seen {h.him} take it.|] "
        'But {h.he} knew what was right. "[Here|I found it]! [Here is your {t}|It was {p.spot}]," said {h}.'
    )
    t.paragraph()
    t.tell(
        '^{c} could not believe it. "[You are so honest|What an honest {h.noun} you are|Thank you for telling the truth]!" '
        "[^{c} gave {h.him} [a hug|{meal}|a shiny coin]|To say thanks, {c} gave {h.him} [{meal}|a little bell|a red apple]].",
        meal=t.rng.choice(("a bag of cookies", "a honey cake", "a jar of jam", "a slice of pie")),
    )
    t.tell(
        "[{h} felt warm inside.|That felt better than any treasure.|{h} was glad that {h.he} had told the truth.|{h} walked home with a light heart.]"
    )
    t.ending(
        "found a {t.full} that was not {h.his} own",
        "gave it back to {c}",
        "[proud|glad|happy]",
        lesson="it feels good to be honest",
    )
    t.facts.theme = "honesty"
    last_line(t)


PLOTS = {"lost": lost, "stuck": stuck, "broken": broken, "shared": shared, "gift": gift, "treasure": treasure}
