"""English words of questions about data, for chat/answerable.py.

ASKING never names a thing that a database lacks: words that ask, count, compare, order, name times and measures, and
verbs and adjectives of everyday use. SAME: words for one thing, one line a thing. HOW: what "how old" asks for.
"""

from collections.abc import Mapping

_ASKING = """
a about above according account accounts across active activities activity actual actually add added additional after
afterwards again against ago ahead all almost alone along alphabetical alphabetically already also altogether always
am amount an and annual another answer any anybody anymore anyone anything apart april are around as ascending ask at
at-least august available average averages avg away back bad balance base based basis basket baskets be became because
become been before begin beginning behind being below beside besides best better between beyond big bigger biggest
both bottom bought break bring brings brought busiest business busy buy buyer buying by calculate call called came can
carry case cases categories category cent change changed chart cheap cheaper cheapest cheaply check choose class
classes closed code collect collected collection column combination combine combined come common company comparable
compare compared comparison complain complaint complete completed consist contain contained containing contains
contribute contribution correct correlation cost could count counted counts cumulative currency current currently
daily dashboard data database date dated day days deal decade december decline decrease deep deepest deliver
descending despite detail details develop development did differ difference different distinct distribution do does
doing dollar dollars done double down drop dropped due during each earlier earliest early earn earned earning earnings
eight eighteen eighty either eleven else empty end ended ending enough entire entries entry equal etc euro euros even
evening ever every everybody everyone everything evolution exactly example exceed exceeded exceeding except exclude
excluding exist exists expensive extra fact fall far fast fastest favorite favourite february few fewer fewest fifteen
fifth fifty figure figures final find first five follow following for form forty found four fourth fraction frequency
frequent frequently friday from full further gain gained gains gave general generate generated get gets getting give
given go goes going good got graph great greater greatest gross group grouped groups grow growth had half handle
handled happen happened has have having he help her here high higher highest his history hit hold holding holds hour
hours how however hundred i id identifier identifiers identify ids if in include included including income increase
info information instead into involve involved is it item items its itself january july june just keep kept key kind
kindly kinds know known label labels large larger largest last late lately later latest lead least left length less
let level lifetime like likely line lines link linked list listed listing little live lived lives living local located
location long longer longest look lose loss lost lot low lower lowest loyal made main make makes making many march
margin master match matching matter max maximum may me mean means meanwhile measure median meet members mention min
minimum minute minutes miss missing moment monday money month monthly months more morning most move much must my name
named names near nearest need needed negative net never new newest next nine nineteen ninety no nobody none noon nor
normal not note nothing november now nowhere null number numbers obtain occur occurred october of off offer offered
offers often old older oldest on once one ones only onto open option options or order ordered ordering origin other
others our out output over overall overview own parameter part particular past pay people per percent percentage
percentages performance period person place placed places please plus popular popularity portion position positive
possible pound pounds present previous price priced primary pro process product profile profit profitable progress
property proportion provide provided purpose put quantity quarter quarters quick quickly range rank ranked ranking
rate rated rather rating ratio reach reached real really receive received recent recently record records reduce
reference references regarding region related relation relationship remain remaining report reported respect
respective respectively restock result results return returned revenue rise rose row rows run running said same sample
saturday save say schema second seconds section see seem segment sell selling sells sent separate september sequence
series serve served set seven seventh several share shared shares she short shortest should show shown shows side sign
since single six sixth size slow slowest small smaller smallest so sold some somebody someone something sort sorted
sorting source speak spend spending spends spent split stand standing start started starting starts state statistic
statistics status stay step still stop strong strongest subject success successful such sum summarise summarize
summary sunday sure system table tag take taken takes team tell ten term than that the their them then there these
they thing things think third thirty this those though thousand three through thursday time times title to today
together told tomorrow top topic total totals toward trend trending trends tuesday turnover twelve twenty twice two
type types typical under unique unit units unknown unless unlike until unusual up upon us use used user users uses
using usual usually value valued values various version versus very via view visit visited volume want wanted was way
we weak weakest wednesday week weekday weekend weekly weeks well went were what when where whereas whether which while
who whole whom whose why will with within without word words work worked working works worst worth would write wrote
year yearly years yen yes yesterday yet you your yuan zero
"""

_SAME = """
customer client buyer shopper consumer member guest
supplier vendor provider manufacturer
employee staff worker colleague personnel workforce salesperson seller salary
product article goods item merchandise
order purchase parcel shipment sale basket
payment pay paid transfer charge
price cost
salary wage pay earn income paid
review feedback opinion complaint comment star rating
rating star score mark
stock inventory unit left
city town place live based
country nation abroad
category group kind
hire recruit join start
join sign register member signup
email mail address
street address
student pupil learner girl boy kid child
teacher instructor tutor
exam test
score grade mark result
grade score mark
gender sex girl boy woman man female male
birth birthday age born old
lesson timetable schedule class teach
seat capacity place
absence absent missed miss
patient case
doctor physician
book title
movie film
phone telephone mobile number
quantity unit piece number
amount money value sum
title job position role
"""

_HOW = {
    "old": "age birth born birthday birthdate dob year",
    "tall": "height size tall",
    "heavy": "weight mass heavy",
    "deep": "depth deep",
    "wide": "width wide size",
    "far": "distance kilometre mile far",
    "fast": "speed velocity fast",
    "hot": "temperature hot",
    "cold": "temperature cold",
    "loud": "volume noise loud",
}

ASKING = frozenset(_ASKING.split())
HOW: Mapping[str, frozenset[str]] = {asked: frozenset(wanted.split()) for asked, wanted in _HOW.items()}


def _groups(text: str) -> Mapping[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for line in text.strip().splitlines():
        words = line.split()
        for word in words:
            found.setdefault(word, set()).update(words)
    return {word: frozenset(same) for word, same in found.items()}


SAME = _groups(_SAME)
"""Word -> the words that may name the same thing, itself among them."""
