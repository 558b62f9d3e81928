"""English words of questions about data, for chat/answerable.py.

ASKING never names a thing that a database lacks: words that ask, count, compare, order, name times and measures, and
verbs and adjectives of everyday use. SAME: words for one thing, one line a thing. HOW: what "how old" asks for.
"""

from collections.abc import Mapping

_ASKING = """
a about above according across active actual actually add added additional after again against ago ahead all almost alone along
already also altogether always am amount an and another answer any anybody anyone anything are around as ask at available
average avg away back bad based be became because become been before beginning begin behind being below best better between big
bigger biggest both bottom bought break bring brought by calculate call called came can carry cases case change changed cheap cheaper
cheapest check choose column combination combine combined come common company comparable compare compared comparison complain complaint
complete completed contain contained containing contains correct cost could count counted counts current currently data database date
dated day days decade deliver december deep deepest detail details did differ difference different distinct distribution do does doing done double
down due during each earlier earliest early earn earned earning earnings either eight eighteen eighty eleven else empty end ended
ending enough entire entries entry equal etc euro euros even ever every everybody everyone everything evolution exactly example except
exceed exceeded exceeding exclude excluding exist exists expensive extra fact far fast fastest february few fewer fewest fifteen fifth
fifty figure figures final find first five follow following for form forty found four fourth frequency frequent frequently friday from
full further gave general get gets getting give given go goes going good got great greater greatest group grouped grow growth had half
handle handled happen happened has have having he her here high higher highest his hit hold holding holds hour hours how hundred i identify if in include
included including income increase info information instead into involve involved is it item items its itself january july june just
keep kept kind kinds know known largest large larger last late later latest lead least left length less let level like likely line lines list
listed listing little live lived lives living located location long longer longest look lot low lower lowest made main make makes making many
march match matching matter maximum max may me mean means median measure meet members mention min minimum minute minutes missing monday money month
monthly months more morning most move much must my name named names near nearest need needed negative never new newest next nine
nineteen ninety no nobody none nor normal not note nothing november now nowhere null number numbers obtain occur occurred october of off offer offered
offers often old older oldest on once one ones only open or order ordered ordering other others our out over overall overview own part
particular past pay people per percent percentage percentages performance period person place placed places please plus popular popularity portion position positive possible
present previous pro profit profitable proportion provide provided put quarter quarters quick quickly range rank ranked ranking rate rather ratio reach reached real
really receive received recent recently record records reduce regarding related remain remaining respective respectively result results return
returned revenue row rows run running said same saturday save say second seconds see seem sell sells selling sent september serve served set seven seventh
several share shared shares she short shortest should show shown shows side sign since single six sixth size small smaller smallest so sold some somebody
someone something sort sorted sorting speak spend spending spends spent split stand standing start started starting starts state stay still
stop such sum summarise summarize summary sunday sure table take taken takes tell ten than that the their them then there these they thing things think third
thirty this those thousand three through thursday time times to today together told tomorrow top total totals toward trend trends tuesday
turnover twelve twenty twice two type types typical under unique unit units unknown until up upon us use used uses using usual usually value
valued values various version very via view want wanted was way we wednesday week weekday weekend weekly weeks well went were what when where whether which
while who whole whom whose why will with within without word words work worked working works worst worth would write wrote year yearly years yes yesterday yet
you your zero average averages annual april august basket baskets volume business busiest busy cent chart closed compare consist contribute
contribution correlation cumulative daily dashboard deal decline decrease develop development dollar dollars drop dropped evening
fall favourite favorite fraction generate generated graph history how however lifetime loyal moment noon output pound pounds price
priced product profit progress purpose quantity rated rating region relation relationship report reported
respect restock rise rose segment separate sequence series slow slowest statistic statistics step strong strongest success successful
team trending unusual weak weakest yuan yen at-least ordering alphabetical alphabetically ascending descending order kindly
currency gain gained gains lose loss lost net gross margin collect collected collection buy buyer buying bring brings visit visited
miss help cheaply lately meanwhile afterwards beyond anymore apart beside besides despite instead nor onto per since though unless unlike versus whereas
basis account accounts activity activities balance base category categories class classes code entry group groups key label labels link linked local
main master number option options origin parameter primary process profile property reference references sample schema section source status subject
summary system tag term title topic unit user users id ids identifier identifiers average combined
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
