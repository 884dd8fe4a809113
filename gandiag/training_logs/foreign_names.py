"""Names of losses and counters in other scripts, in English: Chinese, Japanese, Korean, and some in Russian."""

from __future__ import annotations

import re

# Longer names first: one may begin with another.
FOREIGN_NAMES = {
    "判别器": "discriminator", "判別器": "discriminator", "鉴别器": "discriminator", "鑑別器": "discriminator",
    "识别器": "discriminator", "識別器": "discriminator", "辨别器": "discriminator", "辨別器": "discriminator",
    "判别网络": "discriminator", "判别": "discriminator", "判別": "discriminator",
    "ディスクリミネーター": "discriminator", "ディスクリミネータ": "discriminator", "識別モデル": "discriminator",
    "판별자": "discriminator", "판별기": "discriminator", "식별자": "discriminator", "구분자": "discriminator",
    "감별자": "discriminator", "판별망": "discriminator",
    "生成器": "generator", "生成网络": "generator", "生成モデル": "generator", "ジェネレーター": "generator",
    "ジェネレータ": "generator", "생성자": "generator", "생성기": "generator", "생성망": "generator",
    "生成": "generator", "损失": "loss", "損失": "loss", "误差": "loss", "誤差": "loss", "ロス": "loss",
    "손실": "loss", "오차": "loss", "代价": "loss",
    "イテレーション": "iteration", "ステップ": "step", "エポック": "epoch", "バッチ": "batch",
    "迭代次数": "iteration", "迭代": "iteration", "步数": "step", "步": "step", "轮次": "epoch", "轮数": "epoch",
    "轮": "epoch", "輪": "epoch", "周期": "epoch", "世代": "epoch", "批次": "batch",
    "스텝": "step", "에포크": "epoch", "에폭": "epoch", "반복": "iteration", "배치": "batch",
    "дискриминатора": "discriminator", "дискриминатор": "discriminator", "генератора": "generator",
    "генератор": "generator", "Потери": "loss", "потери": "loss", "Эпоха": "epoch", "эпоха": "epoch",
    "Шаг": "step", "шаг": "step", "Époque": "epoch", "époque": "epoch", "Época": "epoch", "época": "epoch",
    "Pérdida": "loss", "pérdida": "loss",
    "准确率": "accuracy", "正解率": "accuracy", "정확도": "accuracy", "学习率": "lr", "学習率": "lr", "학습률": "lr",
    "函数": "", "関数": "", "함수": "", "值": "", "値": "", "값": "",
    "の": " ", "的": " ", "의 ": " ", "第": "", "제": "",
}  # fmt: skip
NAME_PATTERN = re.compile("|".join(sorted(map(re.escape, FOREIGN_NAMES), key=len, reverse=True)))
# "第3轮", "3エポック", "100 스텝": the counter stands after its number.
COUNTER_PATTERN = re.compile(
    r"(?:第\s*|제\s*)?(\d+)\s*(?:/\s*\d+\s*)?"
    r"(轮|輪|周期|世代|エポック(?:目)?|에포크|에폭|回目|步|ステップ|스텝|次迭代|イテレーション"
    r"|번째 (?:에포크|에폭|스텝))(?!\s*[:：=])"
)
STEP_WORDS = ("步", "ステップ", "스텝", "迭代", "イテレーション", "回目")
PUNCTUATION = str.maketrans(
    {"：": ":", "，": ",", "。": ".", "、": ",", "（": "(", "）": ")", "；": ";", "＝": "=", "\u3000": " "}
)


def translate_names(text: str) -> str:
    """The text with known names in English: "第3轮 判别器损失：0.5" becomes "epoch 3 discriminator loss: 0.5"."""
    text = text.translate(PUNCTUATION)
    text = COUNTER_PATTERN.sub(_put_counter_first, text)
    translated, count = NAME_PATTERN.subn(lambda match: f" {FOREIGN_NAMES[match[0]]} ", text)
    return re.sub(r" {2,}", " ", translated).replace(" :", ":").strip() if count else text.strip()


def _put_counter_first(match: re.Match[str]) -> str:
    return f" {'step' if any(word in match[2] for word in STEP_WORDS) else 'epoch'} {match[1]} "
