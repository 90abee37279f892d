"""The words: names, creatures, things, places, and what may be said about each.

Tables are text, one entry a line and fields divided by `|`, because that is the shortest form to read and to extend.
"""

from __future__ import annotations

from dataclasses import dataclass


def _rows(table: str) -> list[list[str]]:
    return [[field.strip() for field in line.split("|")] for line in table.strip().splitlines()]


def _items(field: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in field.split(";") if item.strip())


GIRLS = [
    "Mia",
    "Lily",
    "Emma",
    "Zoe",
    "Nora",
    "Ella",
    "Anna",
    "Ruby",
    "Lucy",
    "Maya",
    "Alice",
    "Clara",
    "Daisy",
    "Eva",
    "Freya",
    "Grace",
    "Hana",
    "Ida",
    "Ivy",
    "Jade",
    "Julia",
    "Kira",
    "Leila",
    "Lena",
    "Lola",
    "Luna",
    "Mei",
    "Molly",
    "Nina",
    "Olga",
    "Olive",
    "Penny",
    "Rosa",
    "Sara",
    "Sofia",
    "Stella",
    "Tara",
    "Tess",
    "Uma",
    "Vera",
    "Wendy",
    "Yara",
    "Amara",
    "Bella",
    "Chloe",
    "Dora",
    "Elsa",
    "Fatima",
    "Greta",
    "Hazel",
    "Priya",
    "Pearl",
    "Poppy",
    "Sana",
    "Ada",
    "Carmen",
    "June",
    "Mila",
]

BOYS = [
    "Tom",
    "Ben",
    "Leo",
    "Max",
    "Sam",
    "Jack",
    "Finn",
    "Noah",
    "Adam",
    "Alex",
    "Amir",
    "Andy",
    "Anton",
    "Bill",
    "Carl",
    "Dan",
    "David",
    "Eli",
    "Emil",
    "Felix",
    "Fred",
    "George",
    "Gus",
    "Hugo",
    "Ian",
    "Ivan",
    "Jake",
    "James",
    "Joe",
    "Juan",
    "Kai",
    "Karim",
    "Kenji",
    "Lars",
    "Liam",
    "Lucas",
    "Luis",
    "Mark",
    "Milo",
    "Nico",
    "Oliver",
    "Omar",
    "Oscar",
    "Otto",
    "Paul",
    "Pedro",
    "Peter",
    "Ravi",
    "Ron",
    "Simon",
    "Theo",
    "Tim",
    "Toby",
    "Victor",
    "Will",
    "Yusuf",
    "Zack",
    "Arun",
    "Mateo",
    "Henry",
    "Jonas",
]

PET_NAMES = [
    "Pip",
    "Rusty",
    "Clover",
    "Bramble",
    "Biscuit",
    "Button",
    "Pepper",
    "Ginger",
    "Hazelnut",
    "Honey",
    "Maple",
    "Mimi",
    "Nibbles",
    "Nutmeg",
    "Patches",
    "Peanut",
    "Pickle",
    "Pumpkin",
    "Scout",
    "Shadow",
    "Smoky",
    "Snowy",
    "Socks",
    "Spot",
    "Sunny",
    "Tiny",
    "Toffee",
    "Waffles",
    "Whiskers",
    "Ziggy",
    "Bubbles",
    "Bella",
    "Coco",
    "Cookie",
    "Dash",
    "Dusty",
    "Ember",
    "Fern",
    "Flick",
    "Fuzzy",
    "Jasper",
    "Juniper",
    "Mango",
    "Misty",
    "Moss",
    "Muffin",
    "Oreo",
    "Pebble",
    "Pippin",
    "Plum",
    "Poppet",
    "Puddle",
    "Rolo",
    "Rosie",
    "Sandy",
    "Sparky",
    "Sprout",
    "Stormy",
    "Teddy",
    "Thistle",
    "Tilly",
    "Truffle",
    "Tumble",
    "Twig",
    "Willow",
    "Winnie",
    "Zuzu",
    "Bruno",
    "Barnaby",
    "Otis",
    "Dexter",
]

# noun | home | food | adjectives | sound or movement (past tense)
CREATURES = _rows("""
cat | basket by the stove | fish | fluffy; gray; striped; soft; lazy | purred
kitten | shoe box | milk | tiny; playful; white; orange | meowed
dog | wooden kennel | bones | brown; loyal; shaggy; spotted | wagged {his} tail
puppy | warm blanket | biscuits | small; bouncy; golden; curious | wagged {his} tail
rabbit | burrow | carrots | white; brown; quick; soft | wiggled {his} nose
bunny | cozy burrow | clover | small; fluffy; gentle | wiggled {his} nose
mouse | hole in the wall | cheese | tiny; gray; clever; quiet | squeaked
fox | den under the hill | berries | red; clever; sly; quick | flicked {his} tail
bear | cave | honey | big; brown; sleepy; hungry | growled softly
bear cub | cave | honey | small; clumsy; round | rolled over
squirrel | hollow tree | nuts | red; busy; quick; nervous | twitched {his} tail
hedgehog | pile of leaves | apples | small; prickly; shy; round | rolled into a ball
owl | old oak tree | seeds | wise; old; gray; quiet | hooted
duck | nest in the reeds | bread crumbs | yellow; plump; cheerful | quacked
duckling | nest by the pond | bread crumbs | tiny; yellow; fluffy | quacked
frog | lily pad | flies | green; small; jumpy; slimy | croaked
turtle | garden pond | lettuce | slow; old; green; patient | nodded slowly
snail | flower pot | leaves | slow; small; quiet | waved {his} feelers
bird | nest in the apple tree | worms | blue; little; bright; merry | chirped
sparrow | nest under the roof | crumbs | small; brown; brave | chirped
robin | nest in the hedge | worms | red; cheerful; little | sang
crow | tall pine tree | corn | black; clever; loud | cawed
parrot | golden cage | nuts | green; noisy; colorful | flapped {his} wings
penguin | icy shore | fish | black and white; round; funny | slid on {his} belly
elephant | wide grassland | bananas | big; gray; gentle; huge | swung {his} trunk
lion | rocky hill | meat | proud; strong; golden | shook {his} mane
tiger | jungle | meat | striped; strong; orange | swished {his} tail
monkey | tall palm tree | bananas | silly; brown; quick; cheeky | swung from a branch
giraffe | dry grassland | leaves | tall; spotted; gentle | stretched {his} neck
zebra | grassland | grass | striped; fast; shy | stamped {his} hooves
panda | bamboo forest | bamboo | round; black and white; sleepy | rolled in the grass
koala | gum tree | leaves | sleepy; gray; fuzzy | yawned
kangaroo | dry plain | grass | bouncy; strong; brown | hopped
pig | muddy pen | corn | pink; muddy; round; happy | oinked
piglet | bed of straw | apples | pink; tiny; messy | squealed
cow | red barn | hay | spotted; calm; kind; big | mooed
calf | green meadow | milk | young; wobbly; brown | mooed
horse | stable | oats | tall; brown; fast; strong | neighed
pony | stable | apples | small; gray; gentle; stubborn | trotted in a circle
donkey | old stable | carrots | gray; stubborn; tired | brayed
sheep | green hill | grass | white; woolly; gentle | bleated
lamb | green meadow | milk | white; woolly; little | bleated
goat | steep hill | old socks | bearded; hungry; stubborn | stamped {his} feet
hen | hen house | corn | plump; brown; busy | clucked
chick | hen house | seeds | yellow; fluffy; tiny | peeped
rooster | farmyard | corn | proud; loud; colorful | crowed
goose | river bank | grass | white; grumpy; loud | honked
swan | quiet lake | water plants | white; graceful; proud | glided in a circle
bee | busy hive | nectar | tiny; striped; busy | buzzed
butterfly | rose bush | nectar | yellow; delicate; pretty | fluttered
ladybug | green leaf | tiny bugs | red; tiny; spotted | spread {his} wings
ant | sandy hill | crumbs | tiny; strong; busy | waved {his} feelers
spider | corner of the attic | flies | black; shy; patient | climbed up a thread
beaver | dam in the river | bark | brown; busy; strong | slapped {his} tail
otter | river bank | fish | sleek; playful; brown | splashed
badger | deep den | roots | striped; grumpy; old | sniffed the air
mole | tunnel under the garden | worms | blind; soft; busy | dug a little hole
deer | quiet forest | grass | shy; brown; graceful | lifted {his} head
wolf | dark forest | meat | gray; lonely; strong | howled
raccoon | hollow log | leftovers | sneaky; masked; clever | washed {his} paws
crab | rock pool | seaweed | red; snappy; small | clicked {his} claws
seal | rocky island | fish | gray; slippery; playful | clapped {his} flippers
camel | hot desert | dates | tall; grumpy; patient | grunted
bat | dark attic | moths | small; shy; black | flapped around
hamster | cage with a wheel | sunflower seeds | round; golden; busy | stuffed {his} cheeks
""")

# noun | home | adjectives | sound or movement
FANTASY = _rows("""
dragon | cave on a high mountain | small; green; friendly; clumsy | puffed a ring of smoke
robot | old workshop | shiny; silver; rusty; polite | beeped
fairy | blue flower | tiny; kind; bright | sparkled
giant | castle in the clouds | huge; gentle; lonely | laughed like thunder
wizard | crooked tower | old; forgetful; wise | waved {his} wand
witch | house of moss | friendly; funny; young | stirred {his} pot
unicorn | silver forest | white; shy; magical | shook {his} mane
ghost | old castle | shy; pale; polite | floated up and down
snowman | snowy garden | round; cheerful; cold | tipped {his} hat
knight | stone castle | brave; young; clumsy | bowed
princess | stone castle | clever; brave; young | curtsied
prince | tall castle | lonely; kind; young | bowed
pirate | creaky ship | loud; jolly; bearded | stamped {his} boot
troll | damp cave under a bridge | grumpy; hairy; shy | scratched {his} head
elf | hollow tree | tiny; quick; helpful | danced
alien | round silver ship | green; tiny; curious | blinked three eyes
scarecrow | golden cornfield | ragged; kind; lonely | waved a straw hand
""")
ON_HOMES = frozenset(
    {"lily pad", "icy shore", "rocky hill", "steep hill", "sandy hill", "river bank", "green hill", "rocky island",
     "wide grassland", "dry grassland", "grassland", "dry plain", "green leaf", "creaky ship"}
)  # fmt: skip
"""Homes that one lives on, not in."""
FEMALE_ONLY = frozenset({"hen", "cow", "princess", "mermaid", "witch", "fairy"})
MALE_ONLY = frozenset({"rooster", "prince", "wizard", "snowman"})

# name used by the story | how it is addressed | he or she | kind
ELDERS = _rows("""
Mom | Mom | she | family
Dad | Dad | he | family
Grandma | Grandma | she | family
Grandpa | Grandpa | he | family
{his} mother | Mother | she | family
{his} father | Father | he | family
{his} aunt | Auntie | she | family
{his} uncle | Uncle | he | family
{his} big sister | Sis | she | family
{his} big brother | big brother | he | family
the baker | sir | he | town
the farmer | sir | he | town
the teacher | Miss | she | town
the librarian | Miss | she | town
the gardener | sir | he | town
the old fisherman | sir | he | town
the postman | sir | he | town
the nurse | Miss | she | town
the shopkeeper | sir | he | town
the carpenter | sir | he | town
the painter | Miss | she | town
the tailor | sir | he | town
the old woman next door | dear neighbor | she | town
the old man next door | dear neighbor | he | town
""")


@dataclass(frozen=True)
class ThingEntry:
    """A thing a story can be about."""

    noun: str
    use: str
    """What one does with it, base form: fits after "loved to"."""
    used: str
    """The same in the past tense."""
    adjectives: tuple[str, ...]
    tags: frozenset[str]
    """toy, light (the wind takes it), small (can be lost), fragile, made (can be made at home), wear, music, food."""


_COLORS = "red; blue; green; yellow; purple; orange; pink; white; golden; silver"

THINGS = [
    ThingEntry(n, u, p, _items(_COLORS if a == "*" else a.replace("*", _COLORS)), frozenset(t.split()))
    for n, u, p, a, t in _rows("""
ball | bounce the ball | bounced the ball | * | toy small light
balloon | run with the balloon | ran around with the balloon | * | toy light fragile
kite | fly the kite | flew the kite | *; paper; striped | toy light made fragile
doll | play with the doll | played with the doll | old; pretty; rag; tiny | toy small
teddy bear | hug the teddy bear | hugged the teddy bear | brown; soft; old; fluffy | toy small
toy car | race the toy car | raced the toy car | *; fast; shiny | toy small fragile
toy train | push the toy train | pushed the toy train | *; wooden | toy small fragile
toy boat | sail the toy boat | sailed the toy boat | *; wooden | toy small made fragile
paper plane | throw the paper plane | threw the paper plane | *; white | toy light made
spinning top | spin the top | spun the top | *; wooden | toy small
puppet | play with the puppet | played with the puppet | wooden; funny; old | toy small made fragile
yo-yo | play with the yo-yo | played with the yo-yo | * | toy small
jump rope | skip with the jump rope | skipped with the jump rope | *; long | toy small
scooter | ride the scooter | rode the scooter | *; shiny; new | toy ride fragile
bike | ride the bike | rode the bike | *; shiny; new | toy ride fragile
sled | ride the sled | rode the sled | *; wooden; fast | toy ride made fragile
wagon | pull the wagon | pulled the wagon | *; little; wooden | toy ride made fragile
drum | play the drum | played the drum | *; loud; little | music toy fragile
flute | play the flute | played the flute | wooden; silver; little | music small fragile
guitar | play the guitar | played the guitar | old; wooden; brown | music fragile
whistle | blow the whistle | blew the whistle | silver; loud; tin | music small
violin | play the violin | played the violin | old; brown; shiny | music fragile
trumpet | play the trumpet | played the trumpet | golden; shiny; loud | music
music box | open the music box | opened the music box | old; tiny; wooden; painted | music small fragile
hat | wear the hat | wore the hat | *; straw; tall; woolly | wear small light
scarf | wear the scarf | wore the scarf | *; long; warm; striped | wear small light made
ribbon | wear the ribbon | wore the ribbon | *; silk | wear small light
cape | wear the cape | wore the cape | *; long | wear light made
mitten | wear the mitten | wore the mitten | *; warm; woolly | wear small made
ring | wear the ring | wore the ring | golden; silver; tiny | wear small treasure
necklace | wear the necklace | wore the necklace | golden; pearl; silver | wear small treasure made
crown | wear the crown | wore the crown | golden; paper; shiny | wear treasure made
umbrella | twirl the umbrella | twirled the umbrella | *; big; striped | light fragile
lantern | carry the lantern | carried the lantern | little; bright; brass; paper | fragile made
book | read the book | read the book | thick; old; green; blue; red | small book
storybook | look at the storybook | looked at the storybook | old; big; colorful | small book
map | study the map | studied the map | old; secret; torn | small light treasure
letter | read the letter | read the letter | long; secret; folded | small light made
picture | look at the picture | looked at the picture | pretty; colorful; funny | light made
key | carry the key | carried the key | golden; silver; rusty; tiny | small treasure
coin | hold the coin | held the coin | golden; silver; shiny; old | small treasure
shell | listen to the shell | listened to the shell | pink; white; shiny; curly | small treasure
stone | polish the stone | polished the stone | shiny; smooth; blue; round | small treasure
feather | wave the feather | waved the feather | blue; white; long; soft | small light treasure
button | count with the button | counted with the button | *; shiny | small treasure
marble | roll the marble | rolled the marble | *; glass | toy small treasure
bell | ring the bell | rang the bell | golden; silver; little | small music treasure
telescope | look through the telescope | looked through the telescope | long; brass; new | fragile
magnifying glass | look through the magnifying glass | looked through the magnifying glass | big; round; new | small fragile
camera | take pictures with the camera | took pictures with the camera | old; little; black | small fragile
watch | wear the watch | wore the watch | silver; golden; old | wear small fragile treasure
clock | wind the clock | wound the clock | old; wooden; round | fragile
vase | fill the vase with flowers | filled the vase with flowers | blue; tall; glass | fragile
teapot | pour tea from the teapot | poured tea from the teapot | blue; round; old; white | fragile
mug | drink from the mug | drank from the mug | *; big | fragile small
basket | carry the basket | carried the basket | little; big; round | made
blanket | cuddle the blanket | cuddled the blanket | *; soft; warm | small light made
pillow | hug the pillow | hugged the pillow | *; soft; fluffy | light made
backpack | carry the backpack | carried the backpack | *; new; heavy | small
pencil | draw with the pencil | drew with the pencil | *; new; short | small
paintbrush | paint with the paintbrush | painted with the paintbrush | thin; new; little | small
shovel | dig with the shovel | dug with the shovel | *; little | small
bucket | carry the bucket | carried the bucket | *; little; tin | small
fishing rod | fish with the fishing rod | fished with the fishing rod | long; new; old | made fragile
compass | look at the compass | looked at the compass | old; brass; little | small treasure
flashlight | shine the flashlight | shone the flashlight | *; big; bright | small fragile
birdhouse | watch the birdhouse | watched the birdhouse | *; wooden; little | made
dollhouse | play with the dollhouse | played with the dollhouse | big; wooden; pink | toy made fragile
""")
]


@dataclass(frozen=True)
class PlaceEntry:
    """A place a story can happen in."""

    noun: str
    at: str
    """Where something happens: "in the park"."""
    to: str
    tags: frozenset[str]
    """out, tree, water, home, wild."""
    spots: tuple[str, ...]
    """Where a lost thing may lie."""
    sights: tuple[str, ...]
    """What one sees there."""


PLACES = [
    PlaceEntry(n, a, to, frozenset(tags.split()), _items(spots), _items(sights))
    for n, a, to, tags, spots, sights in _rows("""
park | in the park | to the park | out tree water | under a bench; behind the slide; beside the fountain; in the tall grass | ducks on the pond; a man selling balloons; children on the swings
garden | in the garden | to the garden | out tree home | under a rose bush; behind the watering can; between the tomatoes; next to the shed | bees on the flowers; a row of sunflowers; a fat green caterpillar
forest | in the forest | into the forest | out tree wild | under a pile of leaves; behind a mossy log; between two roots; under a fern | tall pines; red mushrooms; a deer between the trees
beach | at the beach | to the beach | out water | behind a rock; under the wet sand; next to a sand castle; in a rock pool | white sails; a line of seagulls; foamy waves
farm | on the farm | to the farm | out tree | behind the barn; under the hay; beside the tractor; in the chicken coop | cows by the fence; a red tractor; piglets in the mud
meadow | in the meadow | to the meadow | out tree | under the daisies; behind a big stone; in the long grass; next to an anthill | yellow butterflies; wild flowers; a rabbit in the clover
school | at school | to school | home | under a desk; behind the door; in the reading corner; on top of the bookshelf | bright paintings; rows of little coats; a globe by the window
library | in the library | to the library | home | behind a row of books; under a soft chair; beside the big globe; below the window | tall shelves; a sleeping cat on the counter; a child with a huge book
market | at the market | to the market | out | under a fruit stand; behind a barrel; between two baskets; beside the flower cart | piles of oranges; a woman with fresh bread; barrels of fish
river | by the river | to the river | out tree water wild | between two stones; under a willow; in the reeds; behind an old boat | silver fish; a wooden bridge; dragonflies over the water
lake | by the lake | to the lake | out tree water wild | under a rowing boat; among the reeds; behind a log; on the jetty | two white swans; a small rowing boat; mist over the water
hill | on the hill | up the hill | out tree wild | behind a big rock; in the heather; under a crooked tree; beside the path | the whole village below; white clouds; sheep on the grass
mountain | on the mountain | up the mountain | out wild | behind a boulder; in a crack in the rock; under some snow; beside the trail | an eagle in the sky; snow on the peaks; a goat on a ledge
village | in the village | into the village | out tree | beside the well; behind the bakery; under a cart; next to the church door | smoke from the chimneys; a cat on a wall; the old clock tower
town square | in the town square | to the town square | out | behind the fountain; under a table; beside the statue; next to a lamp post | a juggler; people with shopping bags; pigeons around the statue
backyard | in the backyard | into the backyard | out tree home | behind the fence; under the porch; in the sandbox; next to the doghouse | clothes on the line; a swing; a robin on the fence
playground | at the playground | to the playground | out tree | under the slide; in the sandbox; behind the swings; next to the gate | a long slide; children on the seesaw; a boy on the monkey bars
zoo | at the zoo | to the zoo | out tree | beside the monkey house; under a bench; next to the ticket booth; behind a bush | sleepy lions; tall giraffes; penguins in the water
barn | in the barn | to the barn | home | under the straw; behind a ladder; inside a bucket; next to the milk cans | swallows in the rafters; a sleepy cow; stacks of hay
attic | in the attic | up to the attic | home | inside a dusty trunk; behind a broken chair; under an old rug; between the boxes | dusty boxes; old portraits; cobwebs in the corners
kitchen | in the kitchen | into the kitchen | home | behind the flour jar; under the table; in a drawer; next to the stove | copper pots; a bowl of plums; bread on the shelf
bedroom | in the bedroom | to the bedroom | home | under the bed; behind the curtain; in the toy box; between the pillows | toys on the floor; a night lamp; drawings on the wall
train station | at the train station | to the train station | out | under a bench; beside the ticket window; behind a suitcase; next to the big clock | a long green train; people with suitcases; a man with a flag
harbor | at the harbor | to the harbor | out water | under a fishing net; behind a barrel; beside an anchor; next to a coil of rope | fishing boats; a tall lighthouse; gulls on the masts
island | on the island | to the island | out tree water wild | under a palm tree; in a small cave; behind the dunes; between two rocks | coconuts on the sand; green parrots; clear blue water
desert | in the desert | into the desert | out wild | behind a cactus; under the sand; beside a dry bush; next to a bleached bone | long dunes; a lizard on a stone; a faraway camel train
jungle | in the jungle | into the jungle | out tree water wild | under a giant leaf; behind a vine; between the roots; beside a stream | bright parrots; hanging vines; monkeys in the branches
castle | in the castle | to the castle | home | behind a suit of armor; under the throne; on the winding stairs; beside the fireplace | long banners; a stone staircase; guards at the gate
cave | in the cave | into the cave | wild | behind a pillar of stone; in a shallow pool; beside some old bones; on a narrow ledge | glittering crystals; drops of water; sleeping bats
orchard | in the orchard | to the orchard | out tree | under an apple tree; behind a ladder; in a basket of pears; beside the stone wall | ripe apples; a ladder against a tree; wasps around the plums
swamp | in the swamp | into the swamp | out tree water wild | on a lily pad; under a rotten log; in the mud; behind the cattails | croaking frogs; a heron on one leg; green slime
snowy field | in the snowy field | into the snowy field | out tree | under the snow; behind a snowdrift; next to a frozen puddle; beside the fence | icicles on the fence; tiny tracks in the snow; a snowman with a carrot nose
museum | in the museum | to the museum | home | behind a dinosaur bone; under a bench; next to a golden mask; beside the stairs | a giant skeleton; old paintings; a sword in a glass box
bakery | in the bakery | to the bakery | home | under the counter; behind a sack of flour; beside the oven; between the cake boxes | warm buns; sugar stars; a tall wedding cake
bridge | on the bridge | to the bridge | out water | between two planks; beside the railing; under the bridge; on a flat stone | a boat below; the rushing water; a heron in the shallows
fair | at the fair | to the fair | out | behind the popcorn stand; under the merry-go-round; beside the tent; next to the ticket booth | a giant wheel; a clown on stilts; rows of prizes
""")
]

TRAITS = _rows("""
brave | loved adventures | never ran away from anything
shy | hid when strangers came | spoke in a very soft voice
curious | asked questions all day long | wanted to know how everything worked
kind | helped everyone | always had a smile for others
clumsy | tripped over everything | dropped things all the time
clever | had a new idea every day | liked to solve puzzles
cheerful | sang from morning to night | laughed at everything
stubborn | never gave up | liked to do things alone
careful | looked twice before every step | counted everything two times
messy | never cleaned up | left things all over the floor
gentle | never hurt even a fly | talked to the flowers
proud | liked to be the best at everything | did not like to ask for help
lazy | slept until noon | liked to rest in the sun
impatient | could never wait | wanted everything right now
quiet | liked to watch the clouds | listened more than {he} talked
playful | made a game out of everything | turned every day into a party
honest | always told the truth | never kept a secret for long
forgetful | forgot where things were | lost something every day
greedy | always wanted one more | did not like to share
funny | told jokes all day | made everybody laugh
helpful | carried bags for the neighbors | liked to help at home
lonely | had no friends yet | often played alone
dreamy | looked out of the window for hours | dreamed of faraway places
grumpy | complained about the weather | did not like mornings
hungry | thought about food all day | always had crumbs on {his} chin
restless | could not sit still | ran everywhere
thoughtful | remembered every birthday | thought before {he} spoke
""")

FOODS = """apple pie;honey cake;pancakes;carrot soup;cookies;strawberry jam;cherry pie;bread and butter;hot chocolate;lemonade;
a bowl of berries;warm milk;noodle soup;cheese sandwiches;chocolate cake;ginger tea;popcorn;peach ice cream;roasted corn;
plum tart;fresh rolls;banana bread;pumpkin soup;blueberry muffins;warm porridge;sweet rice;tomato soup""".replace(
    "\n", ""
).split(";")

JOBS = """swept the floor;washed the cups;watered the flowers;folded the clothes;fed the hens;picked some beans;
peeled the potatoes;raked the leaves;set the table;wiped the windows;carried in the wood;tidied the shelf""".replace(
    "\n", ""
).split(";")
