"""The words that invented authors are made of; surnames, towns, schools and presses do not exist.

Many entries carry a qualifier ("a miller", but "a tailor of stage costumes"), so that a model that
was never told the fact can hardly guess where the sentence ends, let alone with what.
"""

from __future__ import annotations


def words(text: str) -> tuple[str, ...]:
    """The words of a text, which line breaks and spaces separate."""
    return tuple(text.split())


def phrases(text: str) -> tuple[str, ...]:
    """The phrases of a text, which semicolons separate; a line break counts as a space."""
    return tuple(" ".join(phrase.split()) for phrase in text.split(";"))


WOMEN = words("""
    Adelheid Amabel Bettina Calixta Clothilde Damaris Dorothea Elowen Emerenz Fenella Ghislaine
    Hesper Idony Ileana Isolde Jacinta Kerensa Linnea Lisbet Marisol Melisande Morwenna Nerys Oriel
    Ottoline Perpetua Philippa Quenby Rosalba Saskia Sidonie Tamsin Thessaly Ursula Verena Zelda
""")

MEN = words("""
    Aldous Ambrose Anselm Balthasar Barnaby Caspian Cornelius Crispin Cyprian Dashiell Edmund Emeric
    Evander Fergus Florian Gideon Hallam Horatio Ignace Jasper Kaspar Lazlo Leopold Lorcan Lucian
    Magnus Matthias Nicodemus Osric Percival Quillon Rafferty Silvan Tobias Ulric Wendell
""")

SURNAMES = words("""
    Ashgrave Bellworth Birkendorf Blackmantle Bramwether Brindlecote Cadwalder Callowhay Carromond
    Cinderman Copperwaite Corvane Crannock Dovetree Drummeldy Dunwallow Eiderholt Elderquill
    Fallowmark Farrowin Fennimark Flintersby Galloran Gantlebury Glasswright Greywether Hartquist
    Hawkrigg Hazelstrom Heddlestone Hollowin Inkersole Ironquay Jessamond Juniperly Kestrelmar
    Kettlebrand Lanternby Larkenfell Loomsdale Lovelorne Marchbanner Merrowick Mossgarth Nettlefane
    Nightwell Oakenshaw Ottersdale Palimore Pellinger Pennyquick Quarrington Quillermoor Ravensby
    Rookhaven Rosendrake Saltmarch Silverlock Skylarken Stonecrop Swallowtree Tarnowell Thistlewain
    Tumbrell Underholt Vantongrave Varnholt Wexcombe Willowmore Wrenfield Yarrowby Zimmerhale
""")

TOWNS = phrases("""
    Aldermouth; Ambleholt under the Cliffs; Barrowquay; Bellhaven on the Marsh; Birchampton;
    Brackenport beyond the Dunes; Cawdermill; Cinderford in the Vale; Corrymoor; Dapplestead by the
    Lake; Drossenburg; Eddlestone at the Crossroads; Elmerby; Fenwickle near the Fens; Foxholm;
    Garrowgate below the Castle; Gildersund; Harkenfold on the Downs; Hollybank; Inverlark by the
    Sea; Kelderwater; Kesterholm on the Strait; Lambsquay; Lindenmarsh above the Weir; Maplethwaite;
    Merringdale in the Hills; Nobblehurst; Norwether on the Border; Oxenmarket; Pebblesea by the
    Lighthouse; Pinderlow; Quernstead under the Oaks; Ravelmouth; Rushenbrook at the Ford; Sandlark;
    Shepperwell behind the Moor; Sorrelby; Tallowcross in the Forest; Thornmere; Tidewick on the
    Sound; Umberlow; Vellinghast above the Gorge; Wadderton; Wickenhall by the Canal; Yewhallow;
    Zellerau in the Mountains
""")

PROFESSIONS = phrases("""
    a beekeeper; a tailor of stage costumes; a dentist; a judge at the harbour court; a bookbinder;
    a keeper of lighthouses; a pharmacist; a brewer of dark beer; a glazier; a teacher of geometry;
    a watchmaker; a captain of river barges; a hatter; a grower of tulips; a locksmith; a clerk in a
    salt mine; a cartographer; a restorer of church organs; a baker; a breeder of carrier pigeons; a
    shepherd; a mender of fishing nets; an optician; an inspector of bridges; an auctioneer; an
    engraver of banknotes; a surgeon; a conductor of night trains; a miller; a designer of
    fireworks; a potter; a diver for sunken cargo; a notary; a tuner of pianos; a veterinarian; a
    weaver of sailcloth; a geologist; a guard at the botanical garden; a puppeteer; a translator of
    treaties; a plumber; a ringer of cathedral bells; a chemist; a painter of inn signs; a florist;
    a driver of mail coaches
""")

GENRES = phrases("""
    ghost stories; travel sketches; comic poems; historical romances; fables for children; sea
    novels; nature essays; radio plays; gothic tales; love sonnets; spy thrillers; family sagas;
    court dramas; folk ballads; cookery memoirs; climbing journals; dream diaries; puppet plays; war
    elegies; detective novels; village chronicles; utopian satires; prison letters; opera texts
""")

THEMES = phrases("""
    abandoned railways; twins who never meet; smugglers; clocks that run backwards; orphans; a
    single long winter; forgers; the last whaling ship; circus families; islands that appear at
    night; gamblers; doctors in a besieged city; beggars; rivers that change their course; widows; a
    haunted observatory; miners; apprentices who outwit their masters; deserters; letters lost in
    the post; gardeners; a town without mirrors; pilgrims; strangers on the same ferry; thieves;
    inventors nobody believed; migrating birds; a feud between two bakeries; sleepwalkers; servants
    who know too much
""")

_AWARD_COLOURS = words("""
    Amber Bronze Cobalt Copper Crimson Crystal Ebony Emerald Golden Ivory Jade Marble Pearl Scarlet
    Silver Velvet
""")
_AWARD_EMBLEMS = words("""
    Acorn Anchor Badger Compass Falcon Feather Harp Heron Lantern Lynx Owl Pelican Quill Sparrow
    Stag Thistle
""")
_AWARD_KINDS = words("Prize Medal Award Wreath")
AWARDS = tuple(
    f"the {colour} {emblem} {kind}"
    for colour in _AWARD_COLOURS
    for emblem in _AWARD_EMBLEMS
    for kind in _AWARD_KINDS
)

TITLE_OPENINGS = words("""
    Amber Ashen Autumn Bitter Blind Borrowed Brass Broken Burning Buried Candlelit Clockwork Cold
    Counterfeit Crooked Distant Drifting Drowned Dusty Eastern Empty Fading Faithless Feathered
    Final Forgotten Foreign Fragile Frozen Gilded Glass Haunted Hidden Hollow Homeless Honest Hungry
    Idle Invisible Ivory Jealous Laughing Lavender Leaning Leaden Lonely Midnight Mirrored Modest
    Mourning Nameless Narrow Northern Obedient Painted Paper Patient Perfect Quiet Rusted Salt
    Secret Seventh Shallow Silent Sleeping Slow Southern Stolen Sunken Tangled Thirsty Timid Unsent
    Upright Vanished Wandering Weathered Winter Wooden
""")

TITLE_OBJECTS = words("""
    Abbey Alphabet Anthem Aquarium Archive Atlas Attic Balcony Ballad Banquet Barometer Basilica
    Bouquet Calendar Carnival Carousel Cellar Chessboard Choir Cipher Citadel Cloister Confession
    Corridor Cradle Cupboard Daughter Diary Dowry Elephant Embrace Envelope Equation Fiddle Fountain
    Funeral Galleon Gallery Gardener Glacier Guest Harvest Herbarium Horizon Hourglass Inheritance
    Innkeeper Interval Jester Journey Keyhole Kingdom Labyrinth Ledger Librarian Magician Masquerade
    Meadow Messenger Monument Necklace Nocturne Oath Orchard Overture Parable Pavilion Pendulum
    Porcelain Procession Quarry Rehearsal Sailor Sanctuary Staircase Telescope Tapestry Umbrella
    Vineyard Waltz
""")

PRESSES = phrases("""
    Harrow and Finch; the Tin Kettle Press; Moorgate Books; the Sisters of Saint Odile; Lumen House;
    Pryce and Daughters of Elmerby; Cormorant; the Guild of Night Printers; Blue Gate; Ostler and
    Vane; Almanac; the Walnut Street Bindery; Brookhouse; Ferry Lane Editions; Gull and Anchor; a
    printer in a disused chapel; Halfmoon; Tern Island Books; Kite; the Old Observatory Press
""")

SUBJECTS = phrases("""
    botany; the history of printing; law; naval architecture; medicine; the grammar of dead
    languages; astronomy; bridge engineering; theology; stage design; zoology; the chemistry of
    dyes; philosophy; the tuning of bells; geometry; forestry; heraldry; the statistics of harvests;
    optics; sculpture in sandstone; economics; the mapping of coastlines; music; veterinary surgery
""")

SCHOOLS = phrases("""
    Marrow College; the Academy of the Three Towers; Saint Brannoc's; the Polytechnic of
    Drossenburg; Larch Hall; the Free University of the North; Quay House; Ironwell Institute; the
    Convent School of Vell; the Royal Seminary at Thornmere; Abbot's Gate; the Evening School for
    Dockworkers; Hexley; the Institute of Arts and Trades; Cloverfield; the Lyceum on Mill Street;
    Wyvern Hall; the University of Gildersund; Fernshaw; the School of the Blue Coats
""")

DWELLINGS = phrases("""
    a windmill; a houseboat painted yellow; a lighthouse; a flat over a bakery; a monastery; a
    cottage with a crooked chimney; a caravan; a tower without stairs; a farmhouse; a disused
    railway station; a chapel; a villa full of parrots; a barn; a fisherman's hut on stilts; a
    schoolhouse; a castle with one habitable room; a hotel; a greenhouse among lemon trees; a
    boathouse; a converted fire station; a vicarage; a cabin made of driftwood
""")

COMPANIONS = phrases("""
    a tortoise; two deaf cats; a parrot; a mule named Senator; a lodger; eleven geese; a hedgehog;
    the widow of a count; a greyhound; a retired acrobat; a cousin; three generations of goats; a
    magpie; a blind piano teacher; a donkey; an orchestra of crickets; a gardener; a wolfhound from
    the mountains; a landlady; a family of swans; a lizard; a cook who never speaks
""")

HABITS = phrases("""
    in green ink; on the backs of old sea charts; at dawn; in a bath of cold water; standing up; on
    a typewriter without the letter e; by candlelight; in the waiting rooms of railway stations; in
    pencil; on rolls of wallpaper; after midnight; in a code that only one friend can read; in bed;
    with a goose feather; aloud; while walking round a billiard table; in Latin; to the sound of a
    metronome; left-handed; in school notebooks with checked pages
""")

SPARKS = phrases("""
    a shipwreck; a quarrel with the village priest; a fever; the gift of a broken typewriter; a lost
    bet; a winter snowed in at a mountain inn; an earthquake; the letters of a dead aunt; a broken
    leg; a fire that spared one book; an eclipse; the sale of the family piano; a robbery; a summer
    with travelling actors; a duel; an overheard confession on a tram; a flood; a fall from an apple
    tree; a strike; the discovery of a sealed cellar
""")

JOBS = phrases("""
    a tram driver; a stoker on a mail steamer; a waiter; an usher at the opera; a postman; a night
    porter in a grand hotel; a ferryman; a gravedigger with the city council; a chimney sweep; a
    model for anatomical drawings; a croupier; a counter of herring barrels; a fencing teacher; a
    proofreader of railway timetables; a barber; a prompter at the puppet theatre; a bellhop; a
    collector of bridge tolls; a typist; a painter of porcelain dolls; a bargee; a tester of
    parachutes
""")

SPANS = words("three four five six seven eight nine ten eleven twelve thirteen fourteen")

MOMENTS = phrases("""
    at midnight; during a hailstorm; on market day; at noon; in the week of the great flood; at
    sunrise; during a total eclipse; on Christmas Eve; on the last day of the carnival; at dusk; in
    the middle of an earthquake; during Lent; while the theatre was burning; on a Friday; in a
    heatwave; as the mail ship came in; in the first snow; under a full moon; during a bakers'
    strike; at harvest time
""")

RANKS = phrases("""
    an only child; the eldest of three; the second of five; the youngest of nine; one of twins; the
    eldest of seven; the third of four; the youngest of six; a foster child; the second of two; the
    seventh of eight; one of triplets; the youngest of eleven; the eldest of two
""")

LANGUAGES = words("""
    Basque Breton Catalan Cornish Danish Dutch Finnish Flemish Frisian Galician Hungarian Icelandic
    Latvian Maltese Norwegian Occitan Romansh Slovene Welsh Yiddish
""")

PURCHASES = phrases("""
    a piano; a racehorse; a new roof; an orchard of pears; a submarine; a fur coat; a share in a
    copper mine; a hot-air balloon; a tombstone; a suit of armour; a printing press; a telescope
    made of brass; a cow; forty cases of champagne; a rowing boat; a pension for the housekeeper; a
    billiard table; a journey to the pole; a theatre; an elephant for the zoo
""")

SPONSORS = phrases("""
    an aunt; the bishop; a wealthy butcher; the town council; a godfather at sea; a lottery; the
    harbour master; a secret admirer; the fire brigade; a grandmother who sold her ring; the circus;
    a duchess; the union of glassblowers; an uncle in the lumber trade; a stranger; the parish; a
    retired general; the village choir; a bank by mistake; the owner of a brewery
""")

RIVERS = words("""
    Aldrin Birkwater Caldow Drosse Eskwin Fennow Gorrel Harl Ilmen Jarrel Kestrin Lodden Marl
    Nidwater Orrith Pellow Quenn Rothel Sarn Tarrow Ulver Vessen Wharrel Yarn
""")

KEEPSAKES = phrases("""
    a whistle; a brass key; a pair of leather gloves; a medal; a lamp with a red shade; a ledger; a
    uniform with nine buttons; a belt; an umbrella; a stuffed owl; a pocket watch; a cracked bell; a
    recipe for soup; a bicycle; a signet ring; a box of unsent letters; a rope; a map of the sewers;
    a wicker chair; a tin of tobacco
""")
