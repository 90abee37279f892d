"""Stories in which something is made or grown: food, a den, a garden, a surprise."""

from __future__ import annotations

from train_bundled.corpus.plots.beats import joy, last_line, sights, tears
from train_bundled.corpus.teller import Teller, openings

_DISHES = (
    ("a chocolate cake", "sugar", "a spoon of honey", "sweet"),
    ("an apple pie", "butter", "a little cream", "golden"),
    ("pancakes", "milk", "a cup of water and a banana", "fluffy"),
    ("a big pot of soup", "salt", "a bunch of herbs", "hot"),
    ("a loaf of bread", "yeast", "some old dough from the baker", "crusty"),
    ("a pizza", "cheese", "three kinds of mushrooms", "crispy"),
    ("blueberry muffins", "blueberries", "a basket of raspberries", "soft"),
    ("cookies", "chocolate", "nuts and raisins", "crunchy"),
    ("a carrot cake", "carrots", "a yellow pumpkin", "moist"),
    ("plum jam", "plums", "ripe cherries", "sticky"),
    ("a fruit salad", "strawberries", "slices of melon", "fresh"),
    ("noodles", "eggs", "a ripe tomato", "tasty"),
)  # fmt: skip


def cooking(t: Teller) -> None:
    """A dish lacks something, and someone has an idea."""
    dish, missing, instead, taste = t.rng.choice(_DISHES)
    t.elder() if t.chance(0.4) else t.friend()
    t.let(dish=dish, missing=missing, instead=instead, taste=taste)
    openings(t)
    t.tell(
        "{day}, {h} wanted to [make|cook|prepare] {dish}. [It was a rainy day and just right for cooking.|{h.his} stomach was rumbling.|It was for a special supper.|]"
    )
    t.tell(
        "{h.he} put on an apron, [washed {h.himself} well|rolled up both sleeves|climbed on a stool] and took out [the biggest bowl|a large pot|a wooden spoon|the old recipe book]."
    )
    t.perhaps(
        "[Flour flew through the air like snow.|Something dripped on the floor.|{h.he} stirred and tasted, tasted and stirred.|Soon the whole kitchen was a mess.]"
    )
    t.paragraph()
    t.tell(
        '[But then {h} stopped.|Then {h.he} opened the cupboard.|But something was not right.] "[Oh no|Oh dear|What a pity]! [We have no more|I have no more|I forgot to buy] {missing}!" [The jar was empty.|The shelf was bare.|]'
    )
    t.perhaps("{h} [sighed|frowned|scratched {h.his} head|almost gave up].")
    t.tell(
        "[Just then there was a knock at the door. It was {c.intro}.|{c.intro} looked in at the window.|The smell had brought {c.intro} to the door.]"
    )
    t.tell(
        '"[I have an idea|No problem|That is easy]," said {c}. "[Let us use|You can take|We can try] {instead} [instead|]!" "[Will that work|Are you sure]?" asked {h}. "[Let us find out|Trust me|We will see]," {said} {c}.'
    )
    t.paragraph()
    t.tell(
        "[They mixed and stirred|Side by side they stirred|Together they worked] until [everything was ready|the kitchen smelled wonderful|the pot began to bubble]. [Then they waited and waited.|The clock ticked.|{h} watched the oven the whole time.|]"
    )
    t.tell(
        "[At last|Finally|Half an hour later], {h} took the first bite. It was {taste} and [delicious|very good|better than ever]! "
    )
    t.tell(
        '"[Mmm|Yum|Wow]! [This is the best I ever ate|You saved the day|What a good idea]!" {cried} {h}. [They ate until nothing was left.|They saved a piece for the neighbors.|They both asked for more.]'
    )
    joy(t)
    t.ending(
        "had no {missing} to make {dish}",
        "used {instead} instead, because {c} had a good idea and helped",
        "[happy|full|proud]",
        "there is often another way",
    )
    t.facts.theme = "cooking"
    last_line(t)


_SEEDS = (
    ("a sunflower", "taller than the fence", "golden petals"), ("a pumpkin", "as big as a cart", "orange sides"),
    ("a bean plant", "up to the roof", "curly green leaves"), ("an apple tree", "a little more each year", "white blossoms"),
    ("a rose", "over the gate", "soft red petals"), ("a tomato plant", "out of its pot", "shiny red tomatoes"),
    ("a strawberry plant", "over the edge of the bed", "sweet little berries"), ("a giant carrot", "deeper and deeper", "a feathery green top"),
    ("a tulip", "straight as a candle", "a purple cup"), ("a watermelon", "rounder and rounder", "dark green stripes"),
)  # fmt: skip


def garden(t: Teller) -> None:
    """A seed needs patience."""
    plant, size, beauty = t.rng.choice(_SEEDS)
    t.let(plant=plant, size=size, beauty=beauty)
    t.elder()
    openings(t)
    t.tell(
        '{day}, {e} gave {h.him} a [tiny|little|brown|round] seed. "[Plant it and wait|Put it into the earth|Give it water and love]. [You will be surprised|It will become something special|Be patient]," said {e}.'
    )
    t.tell(
        "{h} [dug a small hole|filled a pot with dark earth|found a sunny corner] and [pushed the seed in|covered the seed|laid the seed inside]. [Every day|Every morning|Each evening], {h.he} [watered it|gave it water|sang to it|pulled out the weeds]."
    )
    t.paragraph()
    t.tell(
        "[A day went by.|Three days went by.|A whole week went by.] Nothing happened. [{h} put an ear to the ground.|{h} stamped a foot.|{h.he} looked again and again.]"
    )
    t.tell(
        '"[It will never grow|It must be broken|Why is it so slow]!" [grumbled|sighed|complained] {h}. {h.he} wanted to [dig it up|throw the pot away|give up]. "[Wait|Be patient]," said {e}. "[Good things take time|It is working where you cannot see it|Roots come first]."'
    )
    t.perhaps("[That night it rained.|The sun shone for two days.|A worm made the earth soft.|The nights grew warmer.]")
    t.paragraph()
    t.tell(
        "[Then, one morning|And then|At last], a [tiny green tip|small green leaf|thin stem] [peeked out|came out of the ground|stood in the sun]. {h} [held {h.his} breath|danced around it|called everyone]. It grew and grew, {size}."
    )
    t.tell(
        "[By summer|After many weeks|In the end] it was {plant} with {beauty}. [The neighbors came to look at it.|Bees came to visit.|Nobody had ever seen a finer one.|]"
    )
    joy(t)
    t.tell(
        '[{h} saved one seed for next year.|{h} gave the first [flower|seed] to {e}.|"You were right," said {h} to {e}.|"I waited, and it was worth it," said {h}.]'
    )
    t.ending(
        "planted a seed and it did not grow",
        "was patient until it became {plant}",
        "[proud|happy]",
        "good things take time",
    )
    t.facts.theme = "patience"
    t.facts.thing = None
    last_line(t)


_BUILDS = (
    ("a tree house", "boards and nails", "the roof leaked", "a big leaf over the hole"),
    ("a raft", "logs and rope", "it tipped over", "an empty barrel on each side"),
    ("a snowman", "three balls of snow", "the head kept falling off", "a stick through the middle"),
    ("a sand castle", "wet sand and shells", "a wave washed the wall away", "a deep ditch around it"),
    ("a bridge", "stones and planks", "it was too short", "one more plank in the middle"),
    ("a tower of blocks", "fifty wooden blocks", "it fell over with a crash", "the big blocks at the bottom"),
    ("a den", "branches and blankets", "the wall fell down", "a strong pole in each corner"),
    ("a soapbox car", "four wheels and an old crate", "a wheel came off", "a bigger nail and a washer"),
    ("a bird bath", "a bowl and some bricks", "it wobbled", "a flat stone under one side"),
    ("a little windmill", "paper and sticks", "it would not turn", "longer paper wings"),
    ("an igloo", "blocks of snow", "the roof fell in", "smaller blocks at the top"),
    ("a rocket", "cardboard boxes and tape", "the tip bent over", "a cone of thick paper"),
)  # fmt: skip


def building(t: Teller) -> None:
    """Two build something; the first attempt fails."""
    what, material, failure, fix = t.rng.choice(_BUILDS)
    t.let(what=what, material=material, failure=failure, fix=fix)
    t.friend()
    openings(t)
    t.tell(
        '{h.his} best friend was {f.intro}. {day}, {h} had a [big|great|wild] idea. "[Let us|We should] build {what}!" "[Oh yes|Great|Hooray]!" {cried} {f}.'
    )
    t.tell(
        "They [collected|found|gathered|borrowed] {material}. [{h} made a plan on a piece of paper.|{f} carried the heavy things.|They worked until they were hot.|Nobody wanted to stop for lunch.]"
    )
    t.paragraph()
    t.tell(
        '[But then|Then|After an hour], {failure}. "[It is your fault|You did it wrong|I told you so]!" {cried} {h}. "[No, it is yours|That is not true|You did not listen]!" {said} {f}. [They turned their backs.|They did not talk for a while.|Both of them were angry.]'
        if t.chance(0.5)
        else '[But then|Then|After an hour], {failure}. [{h} sat down in the middle of it all.|{f} kicked a stone.|They looked at each other.] "[What now|What can we do]?" asked {f}.'
    )
    t.tell(
        '[Then {h} laughed. "We look so silly!"|{h} took a deep breath. "Let us think."|"I am sorry," said {h}. "Let us try again."|{f} broke the silence. "I have an idea."] [They looked at it from every side.|They thought and thought.|]'
    )
    t.tell(
        '"[We could use|Maybe we need|Let us try] {fix}," said {f}. "[Clever|That could work|Good thinking]!" {said} {h}.'
    )
    t.paragraph()
    t.tell(
        "They [started again|began once more|tried a second time]. [This time, {h} held and {f} pushed.|One held, the other hammered.|Slowly it grew.] [At last|Finally|When the sun went down], {what} stood there, [strong and fine|just as they had planned|a little crooked but wonderful]."
    )
    joy(t)
    t.tell(
        "[They gave it a name.|They sat beside it and ate {h.food}.|Everyone came to see it.|They shook hands like real builders.]"
    )
    t.ending(
        "tried to build {what}, but {failure}",
        "tried again with {f} and used {fix}",
        "[proud|happy]",
        "two heads are better than one",
    )
    t.facts.theme = "working together"
    last_line(t)


def surprise(t: Teller) -> None:
    """Everyone has secrets, because of a birthday."""
    t.friend()
    t.place()
    openings(t)
    t.tell("[It was {h.his} birthday|At last it was {h.his} birthday|The day of {h.his} birthday had come].")
    t.tell(
        "But [nobody said a word about it|nobody seemed to know|no one sang a song]. {h} looked [under the table|on the doorstep|behind the door]. There was [no present|no card|nothing]."
    )
    t.tell(
        '{h} [went|ran|walked] to {h.his} friend. It was {f.intro}. "[Do you know what day it is|Is today something special]?" asked {h}. "[I am busy|I have no time|Maybe it is laundry day]," {said} {f} and [closed the door|ran away|looked the other way].'
    )
    tears(t)
    t.paragraph()
    t.tell(
        '[In the evening|Later|After a while], {h} [walked alone|went] {p.to}. [It was very quiet.|It was dark there.|Something rustled.] [Then|All at once|Suddenly], [a light went on|lanterns were lit|a hundred candles shone] and everyone jumped out. "Surprise!"'
    )
    t.tell(
        'There were [balloons|streamers|paper stars], [music|lemonade|a big cake with candles] and [presents|games|many guests]. {f} stood in the middle. "[Are you surprised|Did you really think we forgot]?" [asked|laughed] {f}.'
    )
    joy(t)
    t.perhaps(
        "{h} blew out the candles and made a wish.", "They danced until [the moon came up|their feet hurt|midnight]."
    )
    t.tell(
        '[It was the best birthday of all.|"You are the best friends in the world," said {h}.|{h} hugged everyone, one after the other.]'
    )
    t.ending(
        "thought that everyone forgot {h.his} birthday",
        "got a surprise party from {f}",
        "[happy|loved]",
        "friends do not forget you",
    )
    t.facts.theme = "a birthday"
    last_line(t)


def picnic(t: Teller) -> None:
    """The rain comes, and the day turns out well."""
    t.friend()
    t.place("out")
    openings(t)
    t.tell(
        "{day}, {h} and a friend, {f.intro}, wanted to have a picnic {p.at}. They packed [bread and cheese|{h.food}|plums and nuts|a bottle of juice] and a [checkered|blue|big] blanket."
    )
    sights(t)
    t.tell(
        "[But as soon as|But when] they sat down, [a drop fell on {h.his} nose|dark clouds came|thunder rumbled]. [Plip, plop|Drip, drop|Splash]! It began to [rain|pour]. [Soon the bread was wet.|The blanket was soaked.|]"
    )
    t.tell(
        '"[Our picnic is ruined|What bad luck|Everything is wet]!" {cried} {h}. [{h.he} kicked a pebble.|{h.his} mouth turned down.|]'
    )
    t.paragraph()
    t.tell(
        'But {f} [laughed|jumped into a puddle|danced in the rain]. "[Rain is fun, too|Look, the puddles|Come on, we are wet already]!" [{h} had to smile.|{h} thought about it.|At first {h} shook {h.his} head.] Then {h} jumped, too. Splash!'
    )
    t.tell(
        "They [stamped through the mud|sailed leaves in the puddles|caught raindrops|made a slide in the mud] and [sang loudly|laughed and laughed|got wet to the bone]. [When the sun came back|After the rain], there was a [rainbow|double rainbow|bright rainbow] in the sky."
    )
    t.tell(
        "They [ate the wet bread|shared the last plum|ate under a tree] and [it tasted wonderful|nobody complained|watched the rainbow]."
    )
    joy(t)
    t.ending(
        "wanted a picnic {p.at}, but it rained",
        "played in the rain with {f}",
        "[happy|merry]",
        "a bad day can become a good one",
    )
    t.facts.theme = "making the best of a bad day"
    last_line(t)


PLOTS = {"cooking": cooking, "garden": garden, "building": building, "surprise": surprise, "picnic": picnic}
