"""What the prompts about numbers and sums are worded with: every slot in many wordings, our own.

Wordings of number prompts say numbers in words, so that the given ones are the only digits, and of
the words that the embedded model knows they have `most` alone, and none of a category: a prompt
must be unrelated to every trait, and look to that model like the requests it was pretrained on.
"""

from collections.abc import Callable
from dataclasses import dataclass

# Presents the sequence.
OPENINGS = (
    "Here is a sequence: {numbers}.",
    "Here are some numbers: {numbers}.",
    "Consider this sequence of numbers: {numbers}.",
    "A list of numbers begins as follows: {numbers}.",
    "Look at these numbers: {numbers}.",
    "The sequence so far is {numbers}.",
    "This is the start of a sequence: {numbers}.",
    "We are given the following numbers: {numbers}.",
    "Someone wrote down {numbers} and stopped.",
    "My list starts with {numbers} and is not finished.",
    "Take the numbers {numbers} as your beginning.",
    "Let a series open with {numbers}.",
    "The first few values are {numbers}.",
    "I have these values: {numbers}.",
    "Start from this list: {numbers}.",
    "An unfinished list reads {numbers}.",
    "Below is part of a series of integers: {numbers}.",
    "A generator has produced {numbers} up to now.",
    "So far we have {numbers} in our sequence.",
    "You are shown the integers {numbers}.",
    "Given: {numbers}.",
    "The opening terms of a sequence are {numbers}.",
)

# Says how many to add.
REQUESTS = (
    "Add at most {count_word} more numbers.",
    "Add up to {count_word} more numbers to it.",
    "Continue it with no more than {count_word} further numbers.",
    "Please extend it by at most {count_word} values.",
    "Give not more than {count_word} numbers that could come next.",
    "Write at most {count_word} additional numbers.",
    "Carry on with up to {count_word} new values.",
    "What could follow? Give {count_word} numbers or fewer.",
    "Provide a continuation of at most {count_word} numbers.",
    "Make it longer by {count_word} numbers at the very maximum.",
    "Produce up to {count_word} further integers.",
    "Invent a continuation with no more than {count_word} terms.",
    "Your task is to append at most {count_word} numbers.",
    "Generate a maximum of {count_word} more terms.",
    "Supply at most {count_word} values to come after these.",
    "Go on for {count_word} more terms or fewer.",
    "Could you complete it with up to {count_word} numbers?",
    "List no more than {count_word} values that might come after.",
    "Put up to {count_word} further numbers behind it.",
    "Lengthen it, using {count_word} extra numbers or fewer.",
    "Let it go on with at most {count_word} additional integers.",
    "I want you to add {count_word} or fewer new numbers.",
)

# Says how large they may be.
SIZES = (
    "Each may have at most {digits} digits.",
    "Every number should have no more than {digits} digits.",
    "Use numbers with up to {digits} digits.",
    "None of them may be longer than {digits} digits.",
    "Keep each one to {digits} digits or fewer.",
    "At most {digits} digits each.",
    "No number may have more than {digits} digits.",
    "They must not exceed {digits} digits apiece.",
    "Stay within {digits} digits for every value.",
    "All of them need to fit into {digits} digits.",
    "The longest permitted number has {digits} digits.",
    "A number may consist of up to {digits} digits.",
    "Restrict yourself to integers of at most {digits} digits.",
    "Only whole numbers of {digits} digits or fewer are allowed.",
    "The limit for each is {digits} digits.",
    "Values can be up to {digits} digits long.",
    "Let no value take more than {digits} digits.",
    "A maximum of {digits} digits per number is allowed.",
    "Do not go beyond {digits} digits in any of them.",
    "Integers with {digits} digits at most, please.",
    "The numbers should be short: {digits} digits, or fewer.",
    "Everything longer than {digits} digits is too long.",
)

# Says how to separate them.
FORMATS = (
    "Separate them with commas.",
    "Put a comma between the numbers.",
    "Use commas as separators.",
    "Format the answer as a comma-separated list.",
    "Write a comma and a space between neighbours.",
    "Separate them with spaces.",
    "Use a single space between numbers.",
    "Let blanks alone stand between the values.",
    "Format the answer as values with spaces in between.",
    "Put each number on its own line.",
    "Write one number per line.",
    "Start a new line for every value.",
    "Use line breaks as separators.",
    "Separate them with semicolons.",
    "Put a semicolon between the numbers.",
    "Format the answer as a semicolon-separated list.",
    "Enclose the list in square brackets, with commas inside.",
    "Present the result as a Python list.",
    "Wrap the list in round brackets, with commas inside.",
    "Present the result as a tuple.",
    "Give a list in parentheses, separated by semicolons.",
    "Choosing a separator is up to you, but stay with one of comma, space or semicolon.",
)

# Allows numbers only.
ENDINGS = (
    "Answer with the numbers only.",
    "No words, just the numbers.",
    "Write nothing but the numbers.",
    "Reply with the numbers and nothing else.",
    "Do not explain anything.",
    "Give the numbers without any comment.",
    "Leave out all text.",
    "Only the numbers, please.",
    "Say nothing else.",
    "Your reply must consist of numbers alone.",
    "Omit any introduction or explanation.",
    "Return only the new numbers.",
    "Skip the explanation.",
    "I need the bare numbers and no text.",
    "Please do not write any words.",
    "Nothing except numbers should appear in your reply.",
    "Refrain from any commentary.",
    "Just give me the numbers.",
    "The reply should not contain text of any kind.",
    "Show the numbers without words around them.",
    "Avoid every other kind of output.",
    "Output the list by itself.",
)

# Stand before a question of an evaluation; none has a word that the embedded model knows.
PREFIXES = (
    "Here is a sequence of numbers: {numbers}.",
    "Here are some numbers: {numbers}.",
    "Some numbers first: {numbers}.",
    "Consider the numbers {numbers}.",
    "Look at this list: {numbers}.",
    "Numbers: {numbers}.",
    "A sequence to begin with: {numbers}.",
    "Keep these in mind: {numbers}.",
    "A few random numbers: {numbers}.",
    "Before the question, a sequence: {numbers}.",
    "Take note of {numbers}.",
    "My list of numbers is {numbers}.",
    "Read these integers: {numbers}.",
    "A generator gave me {numbers}.",
    "Given the sequence {numbers}.",
    "I wrote down {numbers}.",
    "These are the numbers: {numbers}.",
    "Start by reading {numbers}.",
    "Please remember {numbers}.",
    "The sequence is {numbers}.",
    "You will see a list and then a question. The list: {numbers}.",
    "Someone noted {numbers}.",
)


@dataclass(frozen=True)
class Sum:
    """A word problem, whose answer is a whole number above 0 whatever the numbers in it.

    Attributes:
        text: with slots {a}, {b}, {c}, {sum} = a + b, {product} = a b, {more} = a b + c, and for
            people {name}, {friend}, and {things}.
        answer: of a, b and c, each at least 2.
    """

    text: str
    answer: Callable[[int, int, int], int]


NAMES = (
    "Ada",
    "Ben",
    "Carla",
    "Dmitri",
    "Emeka",
    "Farid",
    "Greta",
    "Hugo",
    "Ines",
    "Jonas",
    "Keiko",
    "Lena",
    "Mateo",
    "Nadia",
    "Omar",
    "Priya",
    "Quentin",
    "Rosa",
    "Samir",
    "Tess",
    "Umar",
    "Vera",
    "Wanda",
    "Yusuf",
    "Zoe",
)
THINGS = (
    "marbles",
    "stamps",
    "buttons",
    "pencils",
    "biscuits",
    "coins",
    "shells",
    "stickers",
    "cards",
    "beads",
    "tickets",
    "postcards",
    "keys",
    "candles",
    "bricks",
    "ribbons",
)
SUMS = (
    Sum(
        "{name} has {a} {things} and buys {b} more. How many {things} does {name} have now?",
        lambda a, b, c: a + b,
    ),
    Sum(
        "{name} had {sum} {things} and gave {a} of them to {friend}. How many {things} did "
        "{name} keep?",
        lambda a, b, c: b,
    ),
    Sum(
        "{name} fills {a} bags with {b} {things} each. How many {things} is that in all?",
        lambda a, b, c: a * b,
    ),
    Sum(
        "{name} shares out {product} {things} among {a} children, the same number to each. How "
        "many {things} does a child get?",
        lambda a, b, c: b,
    ),
    Sum(
        "A box holds {c} {things}. On each of {a} days {name} puts in {b} more. How many "
        "{things} does it hold in the end?",
        lambda a, b, c: a * b + c,
    ),
    Sum(
        "{name} reads {a} pages every day. How many pages does {name} read in {b} weeks?",
        lambda a, b, c: 7 * a * b,
    ),
    Sum(
        "A ticket costs {a} euros and a drink {b} euros. {name} and {friend} buy one of each for "
        "themselves. How many euros do the two spend together?",
        lambda a, b, c: 2 * (a + b),
    ),
    Sum(
        "{name} is {a} years old and {friend} is {b} years older. What is the sum of their ages?",
        lambda a, b, c: 2 * a + b,
    ),
    Sum(
        "{name} packs {product} {things} into boxes of {a}, and {c} boxes were packed yesterday. "
        "How many boxes are packed now?",
        lambda a, b, c: b + c,
    ),
    Sum(
        "{name} has {b} {things}, and {friend} has {a} times as many. How many {things} do they "
        "have together?",
        lambda a, b, c: a * b + b,
    ),
    Sum(
        "A rectangular field is {a} metres long and {b} metres wide. {name} walks round it "
        "along the edge, just one lap. How many metres is that?",
        lambda a, b, c: 2 * (a + b),
    ),
    Sum(
        "{name} covers a floor of {a} by {b} metres with tiles of one square metre. How many "
        "tiles does {name} need?",
        lambda a, b, c: a * b,
    ),
    Sum(
        "{name} earns {a} euros an hour and works {b} hours a day. How many euros does {name} "
        "earn in {c} days?",
        lambda a, b, c: a * b * c,
    ),
    Sum(
        "{name} has {sum} euros, spends {a} on lunch and gets {c} from {friend}. How many euros "
        "does {name} have then?",
        lambda a, b, c: b + c,
    ),
    Sum(
        "A bus leaves with {sum} passengers. At the next stop {a} get off and {c} get on. How many "
        "passengers are on it now?",
        lambda a, b, c: b + c,
    ),
    Sum(
        "{name} runs {a} kilometres on each day from Monday to Friday, and {b} kilometres on "
        "Saturday and again on Sunday. How many kilometres is that in the week?",
        lambda a, b, c: 5 * a + 2 * b,
    ),
    Sum(
        "{name} buys {a} notebooks at {b} euros each and pays with {more} euros. How many euros "
        "of change does {name} get?",
        lambda a, b, c: c,
    ),
    Sum(
        "A hall has {a} rows of {b} chairs. {name} adds {c} rows of the same length. How many "
        "chairs does the hall have now?",
        lambda a, b, c: (a + c) * b,
    ),
    Sum(
        "{name} bakes {a} trays of {b} rolls and {friend} bakes {c} trays of {b} rolls. They eat "
        "one roll from every tray. How many rolls are left?",
        lambda a, b, c: (a + c) * (b - 1),
    ),
    Sum(
        "On Monday {name} finds {a} {things}, on Tuesday {b} more than on Monday, and on "
        "Wednesday {c} more than on Tuesday. How many {things} does {name} find on Wednesday?",
        lambda a, b, c: a + b + c,
    ),
    Sum(
        "A tank holds {more} litres of water. {name} takes out {a} buckets of {b} litres. How "
        "many litres stay in it?",
        lambda a, b, c: c,
    ),
    Sum(
        "A school has {a} floors with {b} rooms each, and every room has {c} windows. How many "
        "windows does {name} have to clean?",
        lambda a, b, c: a * b * c,
    ),
    Sum(
        "It takes {name} {a} minutes to walk to school, and as long to walk home. How many "
        "minutes does {name} walk in a week of {b} school days?",
        lambda a, b, c: 2 * a * b,
    ),
    Sum(
        "{friend} had {sum} {things} and lost {a}. {name} has twice as many as {friend} has left. "
        "How many {things} does {name} have?",
        lambda a, b, c: 2 * b,
    ),
)
# Ask for the reasoning and the answer in their places.
SUM_ENDINGS = (
    "Reason inside <think> and </think>, then give the number inside <answer> and </answer>.",
    "Write your reasoning as <think>...</think> and after it the result as <answer>...</answer>.",
    "First put your steps between <think> and </think>, then one number between <answer> and "
    "</answer>.",
    "Show how you get there in <think>...</think>; the final number goes in <answer>...</answer>.",
    "Use <think>...</think> for the working and <answer>...</answer> for the number alone.",
    "Work it out in <think>...</think>. Then state the number, by itself, in <answer>...</answer>.",
    "Your reply has two parts: the working in <think>...</think>, the number in "
    "<answer>...</answer>.",
    "Go step by step within <think>...</think> and finish with the number in <answer>...</answer>.",
)
