"""Moments that many stories share: weather, sights, tears, thanks, joy, last lines."""

from __future__ import annotations

from train_bundled.corpus.teller import Teller


def weather(t: Teller) -> None:
    """One sentence about the day, outdoors."""
    t.perhaps(
        "[The sun was [shining|high in the sky|warm on {h.his} back].|The sky was [blue|gray|clear|full of fluffy clouds].|"
        "A [soft|cool|gentle|strong] wind [blew through the trees|rustled the leaves|was blowing].|"
        "The air smelled of [flowers|rain|cut grass|salt|warm bread].|"
        "Small clouds drifted over the [hills|roofs|fields].|[Dew|Frost] sparkled [on the grass|in the light].|"
        "[Birds were singing|Bees were humming|Crickets were chirping] [everywhere|in the grass].]"
    )


def sights(t: Teller) -> None:
    """What the hero sees at the place."""
    t.perhaps(
        "[There {h.he} saw {p.sight}.|{h} saw {p.sight}.|{h.he} [stopped to look at|passed|looked at] {p.sight}.]"
    )


def tears(t: Teller) -> None:
    """The hero is sad about the problem."""
    t.tell(
        "[{h} felt {sad}.|{h} was {sad}.|{h.his} eyes filled with tears.|A tear rolled down {h.his} cheek.|"
        "{h} began to cry.|{h.he} could not hold back {h.his} tears.|There was a lump in {h.his} throat.|"
        "{h.he} [sat down and sighed|wanted to cry|hung {h.his} head|did not know what to do].|"
        "{h.his} [lip trembled|heart felt heavy|heart sank].]"
    )


def thanks(t: Teller) -> None:
    """The hero thanks the companion."""
    t.tell(
        '"[Thank you|Thank you so much|Oh, thank you|Thanks a lot], {c.call}!" [said|{cried}] {h}. '
        "[{c} [smiled|nodded|winked|{c.motion}].|"
        '"[You are welcome|That is what friends are for|It was nothing|Any time|I was glad to help]," {said} {c}.|]'
    )


def joy(t: Teller) -> None:
    """The hero is happy."""
    t.tell(
        "[{h} was {glad}.|{h} [jumped for joy|laughed out loud|could not stop smiling|danced around].|"
        "{h.he} felt {glad}.|{h.his} [eyes shone|face lit up|heart beat with joy].|{h} {h.motion}.|"
        "Never had {h} been so happy.|{h.he} sang a little song.|What a happy moment that was!]"
    )


_LAST = (
    "That night, {h} [slept very well|fell asleep with a smile].|"
    "And from that day on, {h} was [never lonely again|a little wiser|a little braver].|"
    "{h.he} [told|wanted to tell] everyone about it.|It was [the best day ever|a day to remember|a very good day].|"
    "And they all lived happily ever after.|The end.|{h} never forgot that day.|"
    "In the evening, {h} ate {h.food} and went to bed.|"
    "The stars came out, and {h} [yawned|smiled at the moon|made a wish]."
)


def last_line(t: Teller) -> None:
    """How the day, or the story, ends."""
    t.perhaps(f"[{_LAST}|That night, {{h}} dreamed of {{p.sight}}.]" if t.facts.place else f"[{_LAST}]")
