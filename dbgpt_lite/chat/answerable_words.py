"""English words of questions about data, for chat/answerable.py.

ASKING never names a thing that a database lacks: words that ask, count, compare, order, name times and measures, and
verbs and adjectives of everyday use. SAME: words that may name one thing, one line a thing, further apart than those of
sql/thesaurus.py, by which tables are found: here they only keep a question from being turned away. HOW: what "how old"
asks for.
"""

from collections.abc import Mapping

_ASKING = """
a abandoned abbreviation about above abroad abundant according account accounts acronym across active activities
activity actual actually add added additional affordable after afterwards again against ago ahead all almost alone
along alphabetical alphabetically already also alternate altogether always am amount an and angry annual another
answer any anybody anymore anyone anything apart april are around arrival arrivals as ascending ask aspect assigned
assortment at at-least attached audience august autumn available average averages avg away awful back backlog bad
balance band bands bargain base based basis basket baskets be became because become been before begin beginning begun
behind being belong belonging belongs below beside besides best bestseller bestsellers better between beyond big
bigger biggest bill bills born borne both bottom bought bound bracket break break-down breakdown bred bring brings
brought bucket budget built bulk bunch busiest business busy buy buyer buying by calculate call called came can carry
case cases cash catalog catalogue categories category caught cause causes ceiling cent central champion change changed
character characters chart cheap cheaper cheapest cheaply check chief choose chosen christmas class classes clientele
closed code collect collected collection column combination combine combined combo come comment comments common
company comparable compare compared comparison complain complaint complete completed composition compute consecutive
consequence consist contain contained containing contains contribute contribution correct correlation cost costing
costly costs could count counted counterpart counts couple crew critical crowd cumulative currency current currently
cutoff daily dashboard data database date dated day days deal dealer dealers deals dealt dear decade december decent
decile decline decrease deep deepest deficit deliver descending despite detail details develop development deviation
did differ difference different digest digit digits dip display dissatisfied distant distinct distribution do does
doing dollar dollars domestic done dormant double down dozen dozens drawn driven driver drivers drop dropped drunk due
duplicate during each earlier earliest early earn earned earner earners earning earnings east easter eastern eaten
effect eight eighteen eighty either eldest eleven else empty end ended ending enormous enough entire entries entry
equal equivalent etc euro euros even evening ever every everybody everyone everything evolution ex exactly example
exceed exceeded exceeding exceeds excellent except excess exclude excluding exist exists expensive experienced extra
extract fact factor failed fall fallen far fast fastest favorite favourable favourite feature features february fed
fee fees felt fetch few fewer fewest fifteen fifth fifty figure figure-out figures filter final find first five floor
flown folk folks follow following for foreign forgotten form former forty fought found four fourth fraction frequency
frequent frequently friday from frozen full further future gain gained gains gap gave gender-neutral general generate
generated get gets getting give given global glowing go goes going gone good got graph great greater greatest gross
group grouped groups grow grown growth guy guys had half halves handful handle handled happen happened happiest happy
has have having he headcount headline heard heaviest held help her here hidden high higher highest hire hires his
history hit hold holding holds holiday holidays hour hours how however huge hundred hung i id identifier identifiers
identify idle ids if impact in in-store inactive include included including income increase individual individuals
info information infrequent initial initials instead international interval intervals into involve involved is it item
items its itself january joint july june junior just keep kept key kind kindly kinds know known label labels lady laid
large larger largest last last-minute late lately later latest lead leader leaderboard leaders least led left length
lent less let letter letters level lies lifetime lightest like likely line lines link linked list listed listing lit
little live lived lives living local located location long longer longest look lose loser losers loss lost lot low
lower lowest loyal loyalty made main major majority make makes makeup making many march margin massive master match
matches matching matter max maximum may me mean means meant meanwhile measure median mediocre meet members membership
mention merchant merchants met midnight min minimum minor minority minute minutes mismatched miss missing mix mode
moment monday money month monthly months more morning most move much must mutual my name named names near nearby
nearest need needed negative net neutral never new newcomer newcomers newest next nine nineteen ninety no nobody none
noon nor normal north northern not note nothing november now nowhere null number numbers obtain occasional occur
occurred october odd of off offer offered offers offline often old older oldest on once one ones online only onto open
option options or order ordered ordering origin other others our out outcome outlier outliers outperform outperforms
output outstanding over overall overdue overlapping overseas overview own ownership pace paid pair pairs parameter
part particular past pause pauses pay payroll peak pending people per percent percentage percentages percentile
performance period person phrase pick place placed places please plentiful plus point points poor popular popularity
portfolio portion position positive possible pound pounds prefix premium present previous price priced pricey priciest
primary principal print pro proceeds process product profile profit profitable progress property proportion provide
provided pull purpose put quantile quantity quarter quarters quartile queue quick quickly range rank ranked ranking
rare rate rated rather rating ratio reach reached read real really reason reasons recap receive received recent
recently record records recurring reduce reference references refunded regarding region regional rejected related
relation relationship remain remainder remaining remote repeat repeated report reported respect respective
respectively rest restock result results retail retrieve return returned returning revenue ridden rise risen rookie
rose round rounds row rows run rundown running said same sample satisfied saturday save say scarce schema season
seasonal seasons second secondary seconds section see seem seen segment select sell seller sellers selling sells
semester senior seniority sent sentence separate september sequence series serve served set settled seven seventh
several sewn shaken share shared shares she shed shop shopping shops short shortage shortest should show shown shows
shut side sign since single sits sitting six sixth size slept slow slowest slump small smaller smallest snapshot so
sold some somebody someone something sort sorted sorting sought source south southern speak spelling spend spender
spenders spending spends spent spike split spoken spread spring squad staffers staffing stand standing stands start
started starting starts state statistic statistics status stay step still stolen stood stop store storefront stores
streak strong strongest struck subject subtotal success successful successive such suffix sum summarise summarize
summary summer sums sunday sure surge surpass surpasses surplus swept sworn swum system table tag take taken takes
takings tally taught team tell tempo ten tenure term terrible text texts than that the their them then there these
they thing things think third thirds thirty this those though thought thousand three threshold through thrown thursday
tier tiers time times tiniest tiny title to today together told tomorrow top topic torn total totals toward trait
transaction transactions trend trending trends trough tuesday turn turnover turns twelve twenty twice two type types
typical ultimate unassigned unattached under underperform understood unfavourable unhappy unique unit units unknown
unless unlike unlinked unpaid until unusual up upcoming upon us use used user users uses using usual usually value
valued values variance various vast version versus very veteran via view visit visited volume want wanted was way we
weak weakest wednesday week weekday weekdays weekend weekends weekly weeks well went were west western what when where
whereas whether which while who whole wholesale whom whose why will winner winners winter with within without woken
won word wording words work work-out worked workforce working works worldwide worn worst worth would wound woven write
written wrote year yearly years yen yes yesterday yet you youngest your yuan zero
"""

_SAME = """
customer client buyer shopper consumer member guest
supplier vendor provider manufacturer
employee staff worker colleague personnel workforce salesperson seller salary
order purchase parcel shipment sale basket
payment pay paid transfer charge
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
student pupil learner girl boy kid child
teacher instructor tutor
gender sex girl boy woman man female male
birth birthday age born old
lesson timetable schedule class teach
seat capacity place
absence absent missed miss
patient case
movie film
phone telephone mobile number
quantity unit piece number
title job position role profession occupation
supplier wholesaler maker producer source
customer subscriber person people individual
city location hometown metropolis
payment transaction receipt invoice bill
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
