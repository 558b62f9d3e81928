"""What a query may be made of. Both tables are allow-lists: anything they do not name is refused.

NODES names sqlglot's syntax-tree classes, FUNCTIONS its function classes (by class name) and, in upper case, functions
that sqlglot knows no class for. Neither lists what can write, wait, lock, read files or variables, or tell secrets.
"""

_NODES = """
    Select Union Intersect Except Subquery With CTE From Join Where Group Having Order Ordered Limit Offset Distinct
    Table TableAlias Alias Column Identifier Star Literal Null Boolean HexString BitString Paren Tuple Interval Var
    IntervalSpan DataType DataTypeParam
    And Or Xor Not EQ NEQ GT GTE LT LTE Is In Between Like ILike Glob Escape NullSafeEQ NullSafeNEQ Exists Any All
    Add Sub Mul Div IntDiv Mod Neg DPipe BitwiseAnd BitwiseOr BitwiseXor BitwiseNot BitwiseLeftShift BitwiseRightShift
    Case If Cast Collate Filter Window WindowSpec Rollup
"""
NODES = frozenset(_NODES.split())

_AGGREGATES = (
    "Count Sum Avg Min Max GroupConcat Stddev StddevPop StddevSamp Variance VariancePop BitwiseAndAgg BitwiseOrAgg "
    "BitwiseXorAgg"
)
_NUMBERS = (
    "Abs Round Ceil Floor Pow Sqrt Exp Ln Log Sign Greatest Least Rand Mod Trunc Pi Sin Cos Tan Cot Asin Acos Atan "
    "Atan2 Degrees Radians BitwiseCount NumberToStr"
)
_TEXT = (
    "Lower Upper Length Substring SubstringIndex Trim Concat ConcatWs Replace Left Right Reverse Pad Initcap Chr "
    "StrPosition Unicode Ascii Hex Repeat Space Soundex Stuff Elt RegexpLike RegexpReplace RegexpSubstr RegexpInstr "
    "Typeof"
)
_CHOICE = "Coalesce Nullif If Case Cast"
_DATES = (
    "Date Time Year Month Day Week WeekOfYear Quarter DayOfWeek DayOfMonth DayOfYear Hour Minute Second Extract "
    "DateAdd DateSub DateDiff DatetimeDiff TimestampDiff TimestampAdd LastDay TimeToStr StrToTime StrToDate ToDays "
    "TsOrDsToDate TsOrDsToTimestamp TsOrDsAdd TsOrDsDiff CurrentDate CurrentTimestamp CurrentTime CurrentDatetime "
    "UnixToTime TimeToUnix Monthname Dayname Timestamp DateTrunc TimeFromParts Localtime Localtimestamp"
)
_WINDOWS = "RowNumber Rank DenseRank PercentRank CumeDist Ntile Lag Lead FirstValue LastValue NthValue"
_LOGIC = "And Or Xor Exists Any All"
_UNTYPED = {
    "sqlite": (
        "TOTAL JULIANDAY DATE DATETIME TIME STRFTIME UNIXEPOCH TIMEDIFF TYPEOF QUOTE LIKELY UNLIKELY PERCENT_RANK "
        "CUME_DIST NTILE"
    ),
    "mysql": (
        "TRUNCATE FORMAT DAYNAME MONTHNAME WEEKDAY YEARWEEK PERIOD_DIFF MAKEDATE TO_DAYS FIELD ELT FIND_IN_SET "
        "BIT_COUNT TIME_FORMAT TIME_TO_SEC SEC_TO_TIME TIMEDIFF PERCENT_RANK CUME_DIST NTILE NTH_VALUE ANY_VALUE "
        "NOW ADDDATE SUBDATE ADDTIME SUBTIME FROM_DAYS UNIX_TIMESTAMP MICROSECOND TO_SECONDS PERIOD_ADD MID STRCMP "
        "ORD CRC32 CONV BIN OCT OCTET_LENGTH"
    ),
}

FUNCTIONS = frozenset(" ".join((_AGGREGATES, _NUMBERS, _TEXT, _CHOICE, _DATES, _WINDOWS, _LOGIC)).split())


def untyped_functions(dialect: str) -> frozenset[str]:
    """Allowed functions of `dialect` that sqlglot parses without a class of their own, in upper case."""
    return frozenset(_UNTYPED[dialect].split())


# Tables of the servers themselves; never part of a schema that may be asked, not even as the name of a CTE.
SYSTEM_TABLES = ("sqlite_", "pragma_", "information_schema", "performance_schema", "mysql", "sys")


def is_system_table(name: str) -> bool:
    """Whether the name belongs to the database system itself."""
    lower = name.lower()
    return lower.startswith(SYSTEM_TABLES[:2]) or lower in SYSTEM_TABLES[2:]
