"""Auto mode on the sample documents, the sample database and the help pages: questions with the place they belong to.

None of these questions is an example of the page. The thresholds of router.py were set with them, so this guards what
was reached; it measures nothing about questions of other people on other data. Those of the text-to-SQL exam were
written for another purpose; the thresholds were set with them too.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbgpt_lite.bootstrap import Services, build_services
from dbgpt_lite.chat.context import Route
from dbgpt_lite.chat.router import ALIKE, CUE_ALONE, Evidence, Router, choose, schema_evidence
from dbgpt_lite.config import Settings
from dbgpt_lite.evaluation import exam as sql_exam
from dbgpt_lite.evaluation.exam import SHIPPED, read_exam
from dbgpt_lite.messages import ChatRequest, Mode

QUESTIONS: dict[Mode, tuple[str, ...]] = {
    "database": (
        "How many orders were placed in 2024?",
        "List the ten most expensive products",
        "What is the total amount of all payments?",
        "Which suppliers are in Shanghai?",
        "Show the employees with a salary above 9000",
        "How many reviews have a rating of 5?",
        "Average order total per customer level",
        "What is the status of order 17?",
        "How many products does each category have?",
        "Names and emails of the customers in London",
        "Which product has the lowest stock?",
        "count the payments by method",
        "What is the highest salary?",
        "Which city has the most customers?",
        "What is the total revenue per month?",
        "Best-selling products",
        "Who are our top five clients?",
        "How much did we earn in March 2024?",
        "How much money did each client spend?",
        "Which goods were never sold?",
        "Orders that were not paid",
        "每月销售额是多少？",
        "收入最高的五位客户",
        "一共有多少个订单？",
        "每个类别各有多少种商品？",
        "平均订单金额是多少？",
        "列出评分最低的商品",
    ),
    "documents": (
        "Within how many days can goods be sent back?",
        "Who pays for the return shipping?",
        "How long is the warranty on batteries?",
        "May I book business class on a long flight?",
        "How quickly are travel expenses paid back?",
        "How do I clean the lantern?",
        "What should I do when the lamp blinks red?",
        "Is the lantern waterproof?",
        "Who do I contact about a damaged parcel?",
        "Which receipts do I need for travel?",
        "How do refunds reach the customer?",
        "How much is paid per kilometre?",
        "Which items cannot be returned?",
        "How much does return shipping cost?",
        "Can I exchange a product for another size?",
        "How many nights of hotel are paid?",
        "Can I return a used product?",
        "Can I return a product after 30 days?",
        "客户退款多久到账？",
        "保修期内换货要多少钱？",
        "试用期有多长？",
        "加班怎么补偿？",
        "客户投诉要在多长时间内回复？",
        "电饭煲怎么清洗？",
    ),
    "chat": (
        "Hello!",
        "What can you do?",
        "How do I connect to MySQL?",
        "Which file types can I upload?",
        "Where is my data stored?",
        "Can you write a poem about autumn?",
        "你好",
        "你能做什么？",
        "怎样上传文件？",
        "谢谢",
    ),
}


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), _env_file=None)  # type: ignore[call-arg]
    with build_services(settings) as made:
        made.prepare()
        yield made


@pytest.mark.parametrize("mode", QUESTIONS)
def test_questions_find_their_place(services: Services, mode: Mode) -> None:
    router = Router(services.knowledge, services.databases, services.quoter, services.settings.knowledge_top_k)
    missed = {}
    for question in QUESTIONS[mode]:
        evidence = router.weigh(question)
        if choose(evidence) != mode:
            missed[question] = (choose(evidence), evidence)
    assert len(missed) <= len(QUESTIONS[mode]) // 8, "\n".join(f"{q}: {found}" for q, found in missed.items())


@pytest.mark.parametrize(
    ("evidence", "mode"),
    [
        (Evidence(), "chat"),
        (Evidence(chat=1.2, documents=0.8, database=0.5), "chat"),
        (Evidence(chat=1.01, documents=0.98, database=1.0), "database"),
        (Evidence(documents=1.3, database=0.4), "documents"),
        (Evidence(documents=0.9, database=0.4), "database"),
        (Evidence(documents=1.1, database=1.0), "database"),
        (Evidence(documents=0.6), "documents"),
    ],
)
def test_choice(evidence: Evidence, mode: Mode) -> None:
    assert choose(evidence) == mode


def test_the_connection_that_fits_is_named(services: Services) -> None:
    route = Router(services.knowledge, services.databases, services.quoter, 5)(
        ChatRequest("", "How many orders were placed in 2024?", "test")
    )
    assert route == Route("database", "shop")


@pytest.mark.parametrize(("language", "least"), [("en", 0.8), ("zh", 0.75)])
def test_questions_of_the_exam_go_to_the_database(services: Services, language: str, least: float) -> None:
    file = Path(sql_exam.__file__).parent / "sql_exam" / f"questions_{language}.jsonl"
    questions = [json.loads(line)["question"] for line in file.read_text(encoding="utf-8").splitlines()]
    router = Router(services.knowledge, services.databases, services.quoter, services.settings.knowledge_top_k)
    there = [question for question in questions if choose(router.weigh(question)) == "database"]
    assert len(there) >= least * len(questions), sorted({*questions} - {*there})


# Asked politely, or of what is one's own; documents would nearly answer them too.
POLITE = {
    "en": (
        "How many customers do I have?", "What are my best-selling products?", "Who are my best customers?",
        "Can you tell me the total revenue per month?", "Can I see all customers in London?",
        "Summarize sales by month", "How are orders distributed by city?", "Which products need to be restocked?",
        "Could you please list the customers in Berlin?", "Please show me my ten largest orders",
        "I want to know how many employees there are",
    ),
    "zh": (
        "请你列出所有客户", "能否统计每月订单数？", "你能列出销售额最高的五个产品吗？", "我想知道每个类别的商品数量",
        "帮我查一下订单总数", "哪些产品需要补货？", "请问一共有多少客户？", "给我看看最近的十个订单",
        "可以帮我统计每个城市的客户数量吗？", "我的订单总额是多少？",
    ),
}  # fmt: skip


@pytest.mark.parametrize("language", POLITE)
def test_a_polite_question_for_rows_is_one(services: Services, language: str) -> None:
    schema = services.databases.get("shop").known_schema()
    assert schema is not None
    weighed = {question: schema_evidence(question, schema.words) for question in POLITE[language]}
    missed = {one: found for one, found in weighed.items() if choose(Evidence(0.95, found, 0.3)) != "database"}
    assert not missed


# Nothing in a database answers these, though they name what is in it.
TALK = {
    "en": (
        "What is your name?", "What is the product return policy?", "How are customer complaints handled?",
        "How to improve product quality?", "How can an order be changed?", "Write an email to a customer",
        "How are employees reimbursed?", "How is the product cleaned?", "How do I write a product review?",
        "How do I cancel an order?", "What is the capital of Japan?", "What will the weather be tomorrow?",
    ),
    "zh": (
        "你叫什么名字？", "明天天气怎么样？", "日本的首都是哪里？", "如何取消订单？", "产品退货政策是什么？",
        "员工请假流程", "客户投诉怎么处理？", "这份合同的日期是什么？", "如何提高产品质量？", "订单怎么修改？",
        "今天是几号？", "今天星期几？",
        "帮我写一封邮件给客户", "员工怎么报销？", "产品如何清洗？", "付款方式有哪些？", "价格谈判有什么技巧？",
    ),
}  # fmt: skip


@pytest.mark.parametrize("language", TALK)
def test_what_no_database_answers_is_not_asked_of_one(services: Services, language: str) -> None:
    schema = services.databases.get("shop").known_schema()
    assert schema is not None
    weighed = {question: schema_evidence(question, schema.words) for question in TALK[language]}
    wrong = [question for question, found in weighed.items() if choose(Evidence(0.6, found, 0.3)) == "database"]
    assert len(wrong) <= len(weighed) // 6, wrong


@pytest.mark.parametrize(("language", "most"), [("en", 0.04), ("zh", 0.06)])
def test_questions_about_documents_stay_away_from_the_database(services: Services, language: str, most: float) -> None:
    """Those of the retrieval exam; of each, whether it would go there while documents nearly answer it."""
    exam = next(exam for exam in read_exam(SHIPPED) if exam.language == language)
    schema = services.databases.get("shop").known_schema()
    assert schema is not None
    asked = [one.question for one in exam.questions if one.answerable]
    weighed = {
        question: Evidence(documents=0.9, database=schema_evidence(question, schema.words)) for question in asked
    }
    wrong = [question for question, evidence in weighed.items() if choose(evidence) == "database"]
    assert len(wrong) <= most * len(asked), wrong


def test_what_means_the_same_as_a_name_counts() -> None:
    schema = frozenset({"customer", "order", "amount", "paid", "city"})
    assert schema_evidence("How much did each client buy?", schema) == ALIKE
    assert schema_evidence("Who are the buyers in Leeds?", schema) < ALIKE
    assert schema_evidence("What is the revenue per month?", schema) == CUE_ALONE
    assert schema_evidence("What is the revenue per month?", frozenset()) == 0
    assert schema_evidence("哪个城市的客户最多？", schema) > schema_evidence("哪个城市的桂花最香？", schema) > 0
    assert schema_evidence("上个月的销售额是多少？", schema) == CUE_ALONE


def test_schema_evidence() -> None:
    schema = frozenset({"customer", "city", "name", "order", "total"})
    assert schema_evidence("How many customers are there in each city?", schema) == 1
    assert schema_evidence("Tell me about the moon", schema) == 0
    assert 0 < schema_evidence("Which customer complained?", schema) < 1
    assert schema_evidence("?", schema) == 0
    assert schema_evidence("How many orders in 2024?", schema) == 1
    assert schema_evidence("平均订单金额是多少？", schema) > schema_evidence("加班怎么补偿？", schema) == 0
    assert schema_evidence("平均订单金额是多少？", frozenset({"订单", "客户"})) < 1
