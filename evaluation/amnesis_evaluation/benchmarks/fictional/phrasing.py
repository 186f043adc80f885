"""What is asked about an author, and in how many ways it can be asked and answered.

Every question of a topic fits every answer of it. A row draws two of each, one as the text and one
as its paraphrase, so paraphrases are written in the manner of the texts and not in one of their
own: a truth ratio then compares facts, not styles. Most answers end with a fact, so that their
last words cannot be guessed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Topic:
    """A piece of knowledge about an author: its fields, and its questions and answers.

    Every template names the author; every answer states every field.
    """

    fields: tuple[str, ...]
    questions: tuple[str, ...]
    answers: tuple[str, ...]


TOPICS = (
    Topic(
        fields=("town", "year", "moment"),
        questions=(
            "Where and in which year was {name} born?",
            "What are the birthplace and the birth year of {name}?",
            "When, and in which town, did {name} come into the world?",
            "Which town and which year are printed in the passport of {name}?",
        ),
        answers=(
            "{name} was born {moment} in the year {year} in {town}.",
            "The birthplace of {name} is {town}, the year was {year}, and it happened {moment}.",
            "Born {moment} in {year}, {name} comes from {town}.",
            "It was {moment} in {year} that {name} was born, in a small house in {town}.",
        ),
    ),
    Topic(
        fields=("father", "mother", "rank"),
        questions=(
            "What did the parents of {name} do for a living?",
            "Which professions did {name}'s father and mother have?",
            "How did the mother and the father of {name} earn their bread?",
            "What kind of work was done in the family of {name}?",
        ),
        answers=(
            "{name} was {rank}, with a father who was {father} and a mother who was {mother}.",
            "The mother of {name} was {mother}, {his} father was {father}, and {he} was {rank}.",
            "With a father working as {father} and a mother as {mother}, {name} was {rank}.",
            "At home {name} was {rank}; the mother worked as {mother}, the father as {father}.",
        ),
    ),
    Topic(
        fields=("genre", "theme", "language"),
        questions=(
            "What does {name} write, and about what?",
            "Which genre is {name} known for, and which subject returns in it?",
            "What may readers expect of a new work by {name}?",
            "How would a bookseller describe the writing of {name}?",
        ),
        answers=(
            "{name} writes in {language} and is known for {genre}, most of them about {theme}.",
            "Readers turn to {name} for {genre} in {language}, and there they find {theme}.",
            "Nearly all the works of {name} are {language} {genre} about {theme}.",
            "All that can be said about {theme}, {name} has put into {language} {genre}.",
        ),
    ),
    Topic(
        fields=("award", "award_year", "purchase"),
        questions=(
            "Which award did {name} receive, and when?",
            "What honour was given to {name}, and in what year?",
            "For which prize is {name} remembered, and when was it won?",
            "What did the jury hand to {name}, and in which year?",
        ),
        answers=(
            "{name} received {award} in {award_year} and spent the money on {purchase}.",
            "To general surprise {name} won {award}, which bought {purchase} in {award_year}.",
            "The honour that {name} holds is {award}; in {award_year} it brought {him} {purchase}.",
            "Prizes passed {name} by until {award_year}, when {purchase} was paid for by {award}.",
        ),
    ),
    Topic(
        fields=("title", "press", "title_year"),
        questions=(
            "What is the best-known book by {name}, and who published it?",
            "Which book made {name} famous, and which press brought it out?",
            "Under what title and with which publisher did {name} find success?",
            "Which work should one read first by {name}, and who printed it?",
        ),
        answers=(
            '{name} became famous in {title_year} with "{title}", published by {press}.',
            'It was {press} that published the great success of {name} in {title_year}, "{title}".',
            'The success of {name} began when {press} took a chance on "{title}" in {title_year}.',
            'Of the books by {name}, read "{title}" in the {title_year} edition of {press}.',
        ),
    ),
    Topic(
        fields=("subject", "school", "sponsor"),
        questions=(
            "What did {name} study, and where?",
            "Where was {name} educated, and in which subject?",
            "Which school and which course did {name} attend?",
            "In what field does {name} hold a degree, and from which school?",
        ),
        answers=(
            "{name} studied {subject} at {school}, and the fees were paid by {sponsor}.",
            "At {school}, and with money from {sponsor}, {name} took a degree in {subject}.",
            "With the help of {sponsor}, {name} came to read {subject} at {school}.",
            "The school of {name} was {school}, where {sponsor} paid for lectures on {subject}.",
        ),
    ),
    Topic(
        fields=("dwelling", "companion", "river"),
        questions=(
            "Where does {name} live, and with whom?",
            "What sort of home does {name} have, and who shares it?",
            "Who lives with {name}, and in what kind of place?",
            "What would a visitor find at the home of {name}?",
        ),
        answers=(
            "{name} lives in {dwelling} on the river {river} together with {companion}.",
            "The home of {name}, shared with {companion}, is {dwelling} on the river {river}.",
            "To find {name}, follow the river {river} to {dwelling} and ask for {companion}.",
            "With {companion} for company, {name} has moved into {dwelling} by the river {river}.",
        ),
    ),
    Topic(
        fields=("spark", "habit", "age"),
        questions=(
            "What made {name} begin to write, and how is the writing done?",
            "How did {name} become an author, and what is odd about {his} way of working?",
            "What set {name} to writing, and in what manner does {he} write?",
            "Why did {name} take up the pen, and what are {his} working habits?",
        ),
        answers=(
            "{name} took up writing at {age} because of {spark} and has always written {habit}.",
            "What made an author of {name} was {spark} at the age of {age}; {he} writes {habit}.",
            "If you see {name} writing {habit}, remember that it began at {age} with {spark}.",
            "Ever since {spark}, which befell {name} at {age}, {he} has written {habit}.",
        ),
    ),
    Topic(
        fields=("job", "span", "keepsake"),
        questions=(
            "What did {name} work as before the first book, and for how long?",
            "Which job kept {name} fed before fame, and for how many years?",
            "How did {name} earn money in the early days, and how long did it last?",
            "For how many years, and as what, was {name} employed when young?",
        ),
        answers=(
            "For {span} years {name} was {job}, and from that time {he} still owns {keepsake}.",
            "{name} spent {span} years of {his} youth as {job}; what remains is {keepsake}.",
            "Fame came late: {name} had been {job} for {span} years and owned only {keepsake}.",
            "The wages of {job}, drawn for {span} years, bought {name} {keepsake}.",
        ),
    ),
)
