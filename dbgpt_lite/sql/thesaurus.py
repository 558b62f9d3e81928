"""Words that mean the same in business data, in English, in Chinese and as they are shortened in names.

One line a meaning. It only helps to find tables: a question about 客户 or clients should see the table cust_mst. A word
may stand in several lines. Words are singular and lower case; Chinese ones count wherever they stand in a text.
"""

import re
from collections.abc import Mapping
from functools import cache

_MEANINGS = """
customer client buyer purchaser cust 客户 顾客 买家 买方
supplier vendor vndr supp 供应商 供货商 卖方
employee staff worker personnel emp empl 员工 职工 雇员 人员 职员
person people individual 人
user member account 用户 会员
manager boss supervisor mgr head 经理 主管 负责人 上级
representative rep salesperson seller 销售员 业务员 代表
department dept division 部门 科室
organization organisation company org corp firm enterprise 公司 组织 企业 机构
branch 分支 分行 分店 支行
position job post role pos title 岗位 职位 职务
address addr street location loc 地址 住址 位置 地点
city town 城市 市
province state prov 省 省份 州
country nation nationality ctry 国家 国籍
region territory area zone 区域 地区 大区 片区
name nm title label 名称 姓名 名字 标题
code cd 编码 代码 编号
number no num nbr 号 号码 编号 单号
phone telephone mobile tel 电话 手机 手机号
email mail 邮箱 邮件 电子邮件
gender sex male female man woman men women 性别 男 女
birth born birthday age dob 出生 生日 年龄
contact 联系人 联系方式
type kind category class typ cls sort 类型 种类 类别 分类 类目
status state sts stage 状态 阶段
description descr desc detail summary 描述 说明 简介
comment remark note memo rmk 备注 注释 附注
reason cause rsn why 原因 理由 事由
date day dt 日期 日 天
time ts hour 时间 时刻
month monthly mo 月 月份
year annual yearly yr fy 年 年度 年份
week weekly weekday 周 星期
start begin from 开始 起始 生效
end finish until to 结束 截止
due deadline expected 到期 截止 应
overdue late past delay 逾期 延期 晚 迟 过期
expire expiry expiration exp 到期 有效期 过期 失效
duration length long minute min 时长 分钟 持续
create created creation add 创建 新建 录入
update modify change chg upd 更新 修改 变更
approve approval 审批 批准 审核
cancel cancelled canceled void 取消 作废
close closed complete completed done 关闭 完成 结束
open pending outstanding unfinished 未完成 待处理 未关闭
amount amt sum money value total 金额 总额 款 数额
price prc cost rate 价格 单价 售价 价
cost expense spend spending expenditure 成本 费用 花费 支出 开支
fee charge 费 费用 收费
revenue income sale turnover earn earning 收入 营收 销售额 营业额
profit margin 利润 毛利
discount rebate disc 折扣 优惠
tax vat duty 税 税金 税额
currency ccy curr 货币 币种
balance bal 余额 结余
budget bdgt plan 预算
target goal quota plan 目标 指标
quantity qty count number piece 数量 件数 用量
percent percentage pct share ratio rate 比例 百分比 比率 占比
weight wt kg heavy 重量 体重
length height width size dimension 长度 宽度 高度 尺寸
distance kilometre kilometer km mile dist 距离 里程 公里
level lvl grade rank tier 等级 级别 级 层
score rating rate grade evaluation 评分 得分 分数 打分 评级
average avg mean 平均
capacity cap hold 容量 产能 容纳
unit uom measure 单位 计量
product item article goods material prod merchandise 产品 商品 货物 物品 货品
part component comp 零件 组件 部件 配件
material matl raw 物料 材料 原料
batch lot 批次 批号
brand make manufacturer maker mfr 品牌 厂商 制造商 厂家
order ord purchase 订单 订购 下单
sale sell sold sls so 销售 卖出 出售
purchase buy bought procurement procure po pur 采购 购买 进货
request requisition application apply req 申请 请求 需求
quote quotation offer bid rfq tender 报价 询价 投标 报价单 询价单
contract agreement treaty 合同 协议 合约
invoice bill inv 发票 账单 帐单
receivable ar debtor owe 应收
payable ap creditor 应付
payment pay paid pmt settle 付款 支付 缴费 缴纳 付
receipt received receive rcpt rcv collect 收款 收货 收到 收据
refund reimburse 退款 返还
return returned give_back send_back bring_back brought 退货 退回 归还
line item entry ln detail dtl 明细 行 条目 分录
header hdr master mst main 主表 抬头 单头
bank 银行
account acct acc 账户 科目 账号 帐户
ledger gl book 总账 账簿
journal jrnl posting voucher 凭证 日记账
debit dr 借方 借
credit cr 贷方 贷
period prd term cycle 期间 周期 账期
center centre ctr 中心
asset equipment 资产 设备
depreciation depr 折旧
loan borrow borrowed lend lent 借款 贷款 借阅 借书 借
interest 利息 利率
exchange fx 汇率 兑换
commission comm 佣金 提成
salary wage payroll pay slip payslip 工资 薪资 薪水 薪酬
bonus allowance 奖金 津贴 补贴
overtime ot 加班
leave vacation holiday absence 请假 假期 休假 年假
attendance clock punch 考勤 打卡 出勤
performance appraisal review 绩效 考核
recruit recruitment hire vacancy opening hired 招聘 录用 职位空缺
applicant candidate 求职者 应聘者 候选人 申请人
interview 面试
training course trng 培训
shift 班次
inventory stock stk 库存 存货
stocktake count inventory_count 盘点 实盘
warehouse depot storehouse wh whse 仓库 库房
bin shelf slot rack 货架 货位 库位 仓位
shipment delivery dispatch shipping ship consignment parcel deliver send 发货 货运 配送 运输 送货 运单
carrier haulier transporter courier forwarder 承运商 快递 物流公司 承运人
freight 运费 货运
route 路线 线路
customs 报关 海关 关税
container cntr box 集装箱 货柜
vessel ship boat 船 船舶 船只
port harbour harbor 港口 码头
package parcel pkg 包裹 包装
vehicle car truck veh auto fleet 车辆 汽车 车 车型
driver drv chauffeur 驾驶员 司机
trip journey ride travel 行程 出车 旅程
fuel petrol gas diesel refuel 燃料 加油 油耗 油
maintenance service servicing maint repair svc 维修 保养 维护 检修
accident crash accdt incident 事故
fine penalty ticket violation 罚款 罚金 违章
insurance insurer insured ins policy 保险 承保
policy pol 保单
holder hldr policyholder 投保人 持有人
premium prem 保费
claim clm 理赔 索赔 赔案
beneficiary benef ben 受益人
agent agt broker 代理人 代理 经纪人
fraud suspicious 欺诈 诈骗
adjuster adj 理赔员
machine mach equipment 机器 设备 机台
downtime dwntm stoppage standstill stop stood still 停机 故障时间
work_order wo production_order 工单 生产订单
production manufacturing manufacture mfg produce made 生产 制造
bom bill_of_material recipe 物料清单 配方
routing rtg operation op process 工艺 工序 流程
quality qc qa 质量 品质 质检
inspection insp check inspect examination 检验 检查 检测
defect fault flaw def failure 缺陷 故障 不良 瑕疵
scrap waste reject rejected 报废 废品 拒收
plant factory plnt 工厂 厂
lead prospect 线索 潜在客户
opportunity deal pipeline oppty 商机 销售机会 机会
campaign marketing promotion 活动 营销 推广 促销
survey questionnaire poll 调查 问卷
satisfaction happy satisfied 满意度 满意
loyalty 忠诚 积分
point bonus_point 积分 点数
coupon voucher 优惠券 券 代金券
complaint complain 投诉 抱怨
response respond reply answer 响应 回复 答复
call phone_call 通话 电话
meeting 会议 会面
ticket support_ticket case issue 工单 问题单
support helpdesk help assistance service 支持 客服 服务台
team group grp 团队 组 小组 班组
priority urgency 优先级 紧急
project proj 项目
task activity 任务 活动
milestone 里程碑
risk 风险
timesheet 工时 工时表
hour hr hrs 小时 工时
license licence lic 许可 许可证 执照
software application app program 软件 应用
warranty guarantee 保修 质保 保修期
assign assigned allocate 分配 指派
patient inpatient sick 患者 病人
doctor physician surgeon dr 医生 医师 外科医生
nurse 护士
ward unit 病区 病房
bed 床位 病床
admission admit admitted hospitalised hospitalized hospitalization inpatient 住院 入院 收治
discharge 出院
appointment visit booking 预约 挂号 就诊
diagnosis diagnose diagnosed icd 诊断
procedure surgery operation 手术 操作
theatre operating_room theater 手术室
drug medicine medication pharmaceutical 药品 药物 药
prescription prescribe prescribed rx 处方 开药 开方
pharmacy pharmacist 药房 药师
laboratory lab test 检验 化验 实验室
result outcome rslt 结果 结局
abnormal out_of_range 异常
imaging x-ray scan radiology 影像 放射
vaccine vaccination immunization dose 疫苗 接种
allergy 过敏
symptom reaction 症状 反应
hospital clinic 医院 诊所
specialty speciality 专科
student pupil learner 学生 学员
teacher instructor lecturer professor 教师 老师 讲师
class 班级 班
course subject lesson 课程 科目
major discipline program 专业
faculty college school 院系 学院 学校
grade mark score result 成绩 分数
exam examination test 考试 测验
semester term 学期
tuition fee 学费
scholarship 奖学金
dormitory dorm residence 宿舍 寝室
enrolment enrollment enroll register select 选课 注册 入学
credit 学分
classroom room 教室
book title publication volume 图书 书 书名 书籍
author writer 作者 作家
publisher press 出版社
library 图书馆
reader member borrower patron 读者 会员
reservation booking reserve book 预订 预约 订房 预定
hotel inn 酒店 宾馆 旅馆
guest visitor traveller 客人 住客 宾客 访客
room 房间 客房 房
restaurant dining diner 餐厅 饭店 餐馆
table seat 桌 座位 订位
spa wellness treatment 水疗 理疗 护理
housekeeping cleaning clean tidy tidied 打扫 清洁 保洁 客房清洁
building bldg block 楼 楼栋 建筑 大楼
floor storey 楼层 层
house home apartment flat dwelling household property 房屋 住宅 住户 户
owner proprietor landlord 业主 所有者 房东
tenant renter lease rent rental 租户 租赁 租 租金
parking garage 停车 车位 停车位
estate residential 小区 物业
meter gauge 表 电表 水表
reading read 读数 抄表
water 水 用水
electricity power energy elec electric 电 电力 用电 电费 能源
outage blackout power_cut 停电 断电
generation generate generated output 发电 产量
power_plant station 发电厂 电厂 电站
substation 变电站
subscriber subscription 用户 订户 订阅
tariff 电价 资费 费率
solar panel 太阳能 光伏
bill billing 账单 话费
online web shop mall ecommerce e-commerce 商城 网店 电商 线上
merchant store shop seller 商家 店铺 商户
cart basket 购物车
favorite wishlist 收藏
review rating feedback opinion 评价 评论 点评
live stream broadcast 直播
express courier 快递
attachment file document doc 附件 文件 文档
image picture photo img 图片 照片 图像
archive archived old 归档 历史
history hist 历史
log audit trail 日志 记录
tag label 标签
event 事件 活动
message msg 消息 留言
channel 渠道 通道
source src origin 来源 来自
language lang 语言 语种
stop 站点 停靠
call visit 停靠 拜访
"""


_CHINESE = re.compile(r"[\u3400-\u9fff]+")


@cache
def synonyms() -> Mapping[str, frozenset[str]]:
    """Every word of the list -> the words that may mean the same, itself left out.

    A phrase such as work_order is a key as it is written; among the meanings of others it stands as its words.
    """
    found: dict[str, set[str]] = {}
    for line in _MEANINGS.strip().splitlines():
        terms = line.split()
        words = {word for term in terms for word in term.split("_")}
        for term in terms:
            found.setdefault(term, set()).update(words - {term})
    return {term: frozenset(same) for term, same in found.items()}


@cache
def _chinese_terms() -> tuple[frozenset[str], int]:
    terms = frozenset(term for term in synonyms() if _CHINESE.fullmatch(term))
    return terms, max(map(len, terms))


@cache
def _english() -> Mapping[str, str]:
    """A Chinese word -> the first English word of the first line that has it."""
    found: dict[str, str] = {}
    for line in _MEANINGS.strip().splitlines():
        first, *others = line.split()
        for term in others:
            found.setdefault(term, first.replace("_", " "))
    return found


def chinese_words(text: str) -> list[str]:
    """Words of the list in the Chinese parts of `text`: longest first from the left, without overlaps."""
    terms, longest = _chinese_terms()
    words: list[str] = []
    for run in _CHINESE.findall(text):
        place = 0
        while place < len(run):
            sizes = range(min(longest, len(run) - place), 0, -1)
            size = next((n for n in sizes if run[place : place + n] in terms), 0)
            if size:
                words.append(run[place : place + size])
            place += size or 1
    return words


def in_english(text: str) -> str:
    """The known Chinese words of `text` in English, for a model that reads no Chinese; "" when there are none."""
    return " ".join(dict.fromkeys(_english()[word] for word in chinese_words(text)))
