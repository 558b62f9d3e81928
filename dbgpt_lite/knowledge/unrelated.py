"""Questions about everyday things and general knowledge that few collections of documents answer.

A space is asked them to learn what a question scores that it does not cover (calibration.py). They are mixed on
purpose: whatever a space is about, most of them are about something else.
"""

from collections.abc import Mapping

from dbgpt_lite.texts import Language

UNRELATED: Mapping[Language, tuple[str, ...]] = {
    "en": (
        "How long should I boil an egg so that the yolk stays soft?",
        "Which planet has the most moons?",
        "What is the capital of Mongolia?",
        "How do I remove a red wine stain from a carpet?",
        "Who painted the ceiling of the Sistine Chapel?",
        "Why do cats purr when they are stroked?",
        "How many strings does a classical guitar have?",
        "What causes the northern lights?",
        "When should tulip bulbs be planted?",
        "How far is it from Oslo to Bergen by train?",
        "What is the offside rule in football?",
        "Which vitamin does sunlight give us?",
        "How is mozzarella made?",
        "Who wrote the novel about the white whale?",
        "What should I pack for a week of skiing?",
        "How do bees find their way back to the hive?",
        "What is the boiling point of mercury?",
        "How can I teach a parrot to speak?",
        "Which river flows through Budapest?",
        "How do I tune a violin without a tuner?",
        "What is a good stretch for a stiff neck?",
        "How old was Mozart when he wrote his first symphony?",
        "How do I change the chain of a bicycle?",
        "What is the difference between a crocodile and an alligator?",
    ),
    "zh": (
        "溏心鸡蛋要煮几分钟？",
        "哪颗行星的卫星最多？",
        "蒙古国的首都叫什么名字？",
        "地毯上的红酒渍怎么去除？",
        "西斯廷教堂的天顶画出自谁的手笔？",
        "猫被抚摸时为什么会打呼噜？",
        "古典吉他有几根弦？",
        "极光是怎样形成的？",
        "郁金香的球根什么时候种？",
        "从奥斯陆坐火车到卑尔根有多远？",
        "足球比赛里的越位规则是什么？",
        "晒太阳可以补充哪种维生素？",
        "马苏里拉奶酪是怎么做的？",
        "写白鲸的那部小说作者是谁？",
        "去滑雪一周要带哪些衣物？",
        "蜜蜂怎样找到回蜂巢的路？",
        "水银的沸点是多少度？",
        "怎么教鹦鹉说话？",
        "哪条河流经布达佩斯？",
        "没有调音器怎么给小提琴调音？",
        "脖子僵硬做什么拉伸比较好？",
        "莫扎特几岁写了第一部交响曲？",
        "自行车的链条怎么更换？",
        "鳄鱼和短吻鳄有什么区别？",
    ),
}
