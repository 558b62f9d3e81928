"""Messages that ask to change data, and questions that only sound like it."""

import json
from importlib import resources

import pytest

from dbgpt_lite.chat.wish import asks_to_write

WISHES = """
Delete all orders.
delete the customer with id 3
Please delete everything from the payments table
Can you drop the table orders
drop all tables
Truncate orders
INSERT INTO orders VALUES (1)
Update the price of every product to 0
update all salaries by 10 percent
Remove the reviews of Alice
Add a new customer called Bob
Create a table for refunds
create new user admin
Rename the table orders
Set the price of all products to 0
Change every salary to 1
Grant all rights to bob
Wipe the database
UPDATE orders SET status='x'
Drop customers
drop database shop
Can you delete all the orders?
Could you please remove all customers from Berlin?
delete customer 3
delete orders older than 2020
更新订单5的状态为已发货
删除所有订单
请删除编号为 3 的客户
清空订单表
把所有商品的价格改为 0
将张伟的工资设置为 1
帮我插入一个新客户
新增一位客户
""".strip().splitlines()

QUESTIONS = """
How many orders were deleted?
Create a table of revenue by month
Create a view of sales by month
Create a table for each city with its customers
Delete requests per month
Grant amounts to each university
Truncate prices to two decimals
Drop rate
Set the date range to 2024
Change the grouping to month
Add a column with the share of the total
Can you delete the old ones and show how many remain?
Updates per month
新建客户的数量
删除标记为1的订单数量
把订单按更新时间倒序排列
把时间范围改为2024年
添加一列占比
Drop in revenue by month
Drop rate of each product
Updated orders this month
Show the update time of every order
Delete rate by month
Remove the cancelled orders and show the total revenue
Add up the totals of all orders
Create a chart of revenue by month
Create a list of all customers
Set of customers who live in Berlin
Which customers were added in 2024?
Insert date of the newest order
Can you list the customers that were removed?
删除的订单有多少？
更新时间最近的订单
把每个城市的客户数列出来
将订单按月统计
新增客户数按月变化
被取消的订单占比
""".strip().splitlines()


@pytest.mark.parametrize("message", WISHES)
def test_a_wish_to_change_data(message: str) -> None:
    assert asks_to_write(message)


@pytest.mark.parametrize("message", QUESTIONS)
def test_a_question(message: str) -> None:
    assert not asks_to_write(message)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_question_of_the_exam_is_a_wish(language: str) -> None:
    exam = resources.files("dbgpt_lite.evaluation") / "sql_exam" / f"questions_{language}.jsonl"
    questions = [json.loads(line)["question"] for line in exam.read_text(encoding="utf-8").splitlines()]
    assert len(questions) >= 50
    assert [question for question in questions if asks_to_write(question)] == []
