"""COCO's 80 categories, and other words by which an answer may name an object of each."""

_TABLE = """
person: man, men, woman, women, boy, girl, child, children, people, human, adult, kid, baby, toddler, infant, teenager
person: guy, lady, gentleman, someone, somebody, crowd, couple, spectator, pedestrian, passenger, driver, worker
person: player, athlete, skier, surfer, skateboarder, snowboarder, skater, rider, cyclist, biker, motorcyclist, batter
person: catcher, umpire, referee, chef, waiter, officer, policeman, policewoman, soldier, firefighter, bride, groom
person: baseball player, basketball player, football player, soccer player, tennis player, bus driver, truck driver
bicycle: bike, cycle
car: automobile, sedan, taxi, cab, suv, jeep, van, minivan, hatchback, convertible, limousine
motorcycle: motorbike, motor bike, moped, scooter
airplane: aeroplane, plane, aircraft, jet, airliner, jetliner, jumbo jet, biplane
bus: minibus, double decker
train: locomotive, tram, streetcar, railcar
truck: lorry, pickup, pick up truck, firetruck, fire engine, semi
boat: ship, sailboat, sailing boat, rowboat, motorboat, speedboat, canoe, kayak, ferry, yacht, gondola, raft, dinghy
traffic light: traffic signal, stoplight, stop light, signal light
fire hydrant: hydrant
stop sign:
parking meter:
bench:
bird: seagull, gull, pigeon, dove, duck, duckling, goose, geese, swan, parrot, parakeet, owl, eagle, hawk, sparrow, crow
bird: rooster, hen, pelican, ostrich, penguin, peacock, flamingo, heron, stork, hummingbird
cat: kitten, kitty, feline
dog: puppy, pup, hound, terrier, poodle, bulldog, dachshund, labrador, retriever, beagle, corgi, canine
horse: pony, foal, mare, stallion
sheep: lamb, ewe, ram
cow: cattle, bull, calf, ox, oxen
elephant:
bear: bear cub, grizzly
zebra:
giraffe:
backpack: back pack, rucksack, knapsack
umbrella: parasol
handbag: hand bag, shoulder bag, tote, purse, bag
tie: necktie, neck tie, bowtie
suitcase: luggage, baggage
frisbee: flying disc, flying disk
skis: ski
snowboard: snow board
sports ball: ball, baseball, basketball, football, volleyball
kite:
baseball bat: bat
baseball glove: baseball mitt, glove, mitt
skateboard: skate board, longboard
surfboard: surf board
tennis racket: tennis racquet, racket, racquet
bottle:
wine glass: wineglass, champagne glass, champagne flute, goblet
cup: mug, teacup, tumbler
fork:
knife:
spoon:
bowl:
banana:
apple:
sandwich: burger, hamburger, cheeseburger, panini
orange: tangerine, mandarin, clementine
broccoli:
carrot:
hot dog: hotdog, frankfurter
pizza:
donut: doughnut
cake: cupcake, cheesecake
chair: armchair, stool, highchair, recliner
couch: sofa, loveseat, settee, futon
potted plant: plant, houseplant, flowerpot, flower pot
bed: bunk, mattress
dining table: table, desk
toilet: urinal
tv: television, telly, monitor, screen, computer monitor, computer screen
laptop: computer, notebook computer, macbook
mouse: mice, computer mouse
remote: remote control, tv remote, television remote, game controller
keyboard: computer keyboard, laptop keyboard
cell phone: cellphone, mobile phone, mobile, smartphone, smart phone, iphone, phone, telephone
microwave: microwave oven
oven: stove, cooker
toaster:
sink: basin, washbasin
refrigerator: fridge, freezer
book: textbook, novel, paperback
clock:
vase:
scissors: scissor, shears
teddy bear: teddy, stuffed animal, stuffed bear, stuffed toy, plush toy
hair drier: hair dryer, hairdryer, blow dryer
toothbrush: tooth brush
"""


def _read(table: str) -> dict[str, tuple[str, ...]]:
    synonyms: dict[str, tuple[str, ...]] = {}
    for line in table.strip().splitlines():
        name, _, words = line.partition(":")
        synonyms[name] = synonyms.get(name, ()) + tuple(word.strip() for word in words.split(",") if word.strip())
    return synonyms


SYNONYMS = _read(_TABLE)
"""In COCO's order; plurals and hyphens need no entry of their own, irregular plurals do."""
