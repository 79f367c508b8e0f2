"""Sentences for the embedded corpus, written for it, and a sampler that fills a clip with them.

Together they use every English consonant and vowel often, with many bilabials, rounded vowels and
open vowels, so that the lips have something to do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from talkhead.corpus.speech import PAUSE, Phoneme, Speech, join, silence, synthesize
from talkhead.errors import ConfigError
from talkhead.specs import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, samples_to_frames

SENTENCES: tuple[str, ...] = (
    "The morning boat moves slowly past the empty pier.",
    "Why do we always buy more apples than we need?",
    "My brother paints small pictures of birds in blue and brown.",
    "Please put the map back under the lamp.",
    "A warm wind blew over the purple hills.",
    "Maybe we should walk home before the rain begins.",
    "She chose a shiny yellow umbrella, and I chose a green one.",
    "Five people bought bread; nobody bought the plum jam.",
    "The museum opens at nine, but the garden opens at ten.",
    "How far away is the old wooden bridge?",
    "Both bakers begin to bake before six in the morning.",
    "Thank you for bringing the heavy box upstairs.",
    "The judge asked for silence, and the room became quiet.",
    "We saw two foxes run across the frozen field!",
    "Open the window, please, and let some fresh air in.",
    "Every child in the village knows that song by heart.",
    "Her voice was calm, warm and very clear.",
    "I would rather make soup than wash the pots.",
    "The train to the mountains leaves from platform four.",
    "Could you move your bicycle a little to the left?",
    "Thirty thirsty horses stood beside the river.",
    "Bob and Mabel mopped up the spilled milk.",
    "The weather map shows fog over the whole valley.",
    "He thought the message was meant for somebody else.",
    "Measure the garage twice before you buy the door.",
    "No, I have never been to the northern islands.",
    "The puppy jumped up, barked, and ran back to the pond.",
    "Our new neighbour plays the violin beautifully.",
    "Do you prefer tea with lemon, or coffee with cream?",
    "A beam of light moved over the empty stage.",
    "The teacher wrote three long words on the board.",
    "Fish soup, fresh bread, and a bowl of beans.",
    "What a wonderful view from up here!",
    "The clock in the hall is always five minutes slow.",
    "Perhaps the answer is simpler than we believe.",
    "The farmer sold all his pumpkins by noon.",
    "Watch the water boil, and then add the rice.",
    "Most of the boats in the harbour are painted white.",
    "It was a pleasure to visit your workshop.",
    "The young pilot looked up and saw only clouds.",
    "Choose any chair you like, they are all the same.",
    "My grandmother makes the best blueberry pie.",
    "The path bends twice and then climbs to the farm.",
    "Who left the big blue bowl out in the rain?",
    "We keep the old photographs in a paper bag.",
    "The moon rose above the roof of the opera house.",
    "Remember to bring a map, some matches and a rope.",
    "The bus was full, so we went by bicycle.",
    "Three thin branches grew through the fence.",
    "The market is busy on Mondays and empty on Fridays.",
    "You may borrow my umbrella, but please bring it back.",
    "The cat slept on top of the piano all afternoon.",
    "I hope the bakery still has some of those small rolls.",
    "The whole team cheered when the final number appeared.",
    "Put a pinch of pepper in the potato soup.",
    "A long shadow fell across the empty square.",
    "The shop on the corner sells paper, pens and glue.",
    "Nobody moved, nobody spoke, and the lamp went out.",
    "When will the next ferry arrive?",
    "The gardener showed us how to prune the apple trees.",
    "Her favourite colour is a very deep green.",
    "The river froze early that year.",
    "We watched the swallows above the meadow until sunset.",
    "Paul prefers plain paper for his maps.",
    "It is warmer by the window than by the wall.",
    "The engine hums, stops, and hums again.",
    "Big waves beat against the harbour wall.",
    "She measured the wood, marked it, and sawed it in two.",
    "The books on the upper shelf belong to my aunt.",
    "Would you mind turning the music down a bit?",
    "A small robin hopped along the frozen path.",
    "The recipe asks for butter, milk, flour and one egg.",
    "Everybody in the room began to laugh.",
    "The lighthouse keeper waved as the ship went by.",
    "We can meet at the fountain at half past four.",
    "The violin was older than the house itself.",
    "That bridge was built by my mother's company.",
    "The bread is still warm; mind your fingers.",
    "He walked home by the longer road, past the mill.",
    "Jam, honey, or maybe marmalade?",
    "The bell rang, and the pupils put away their books.",
    "A pale beam came in through the broken shutter.",
    "I was amazed by how much the town had changed.",
    "The people at the back could hardly hear the band.",
    "Please move the table nearer to the wall.",
    "The snow began to melt on the first day of March.",
    "You should have seen the size of that pumpkin!",
    "The library closes early in the winter months.",
    "We followed the stream until it reached the lake.",
    "Mother bought a pair of brown leather boots.",
    "Which of these two roads goes to the sea?",
    "The chef chopped onions, mushrooms and a bunch of herbs.",
    "The old farm has a barn, a pond and a pear tree.",
    "Slowly, very slowly, the heavy gate swung open.",
    "The boy made a paper boat and put it on the pond.",
    "There is room for one more in the back.",
    "The wind blew my map into the bushes.",
    "A message came from the other side of the valley.",
    "They usually paint the fence in the spring.",
    "The baker's daughter plays football every Thursday.",
    "I believe you; I simply need more time.",
    "The first bus leaves while it is still dark.",
    "Move closer, and I will show you how it works.",
    "The puzzle has more than five hundred pieces.",
    "Above the beach, the path becomes steep and narrow.",
    "Tomorrow may be too late.",
    "The potter shaped the bowl with both thumbs.",
    "Our boat passed below the bridge without a sound.",
    "Somebody must have moved the ladder.",
    "The baby babbled and waved both arms.",
    "Do not forget to water the tomatoes.",
    "They built a raft from rope and empty barrels.",
    "The orchestra began to play, and all became still.",
    "Yes, of course we remember you!",
    "The road was smooth at first, then very bumpy.",
    "Her answer surprised nobody but me.",
    "Fresh mint grows wild behind the boathouse.",
    "The judge, the pilot and the cook all agreed.",
    "I have a feeling that we have been here before.",
    "The lamp by the door throws a warm, amber light.",
    "Good evening, and welcome to our small museum.",
    "How many spoons of sugar would you like?",
    "The window above the shop was open all night.",
    "We wish you a smooth voyage and a safe return.",
)

_LEAD_S = (0.15, 0.45)
_GAP_S = (0.25, 0.8)


@dataclass(frozen=True)
class Utterance:
    """What is said in a clip: the speech, exactly as long as its frames, and its sentences."""

    speech: Speech
    texts: tuple[str, ...]


def sample_utterance(
    rng: np.random.Generator, seconds: float, voice: str, rate: int = 165, pitch: int = 50
) -> Utterance:
    """Fill a clip with sentences, short silences before and between them, cut at the clip's end.

    Args:
        rng: Source of all choices.
        seconds: Length of the clip; rounded down to whole frames.
        voice: See :func:`talkhead.corpus.speech.synthesize`.
        rate: Mean speaking rate; every sentence varies it by up to 8 %.
        pitch: Mean pitch; every sentence varies it by up to 4.

    Returns:
        Speech of exactly ``640 * frames`` samples; a sentence that does not fit is cut.

    Raises:
        ConfigError: The clip is shorter than half a second.
    """
    samples = samples_to_frames(int(seconds * SAMPLE_RATE_HZ + 0.5)) * SAMPLES_PER_FRAME
    if seconds < 0.5:
        raise ConfigError(f"a clip needs at least 0.5 s, got {seconds} s; ask for longer clips.")
    order = rng.permutation(len(SENTENCES))
    parts, texts, length = [silence(rng.uniform(*_LEAD_S))], [], 0
    for index in order:
        text = SENTENCES[int(index)]
        words_a_minute = round(rate * rng.uniform(0.92, 1.08))
        tone = int(np.clip(pitch + rng.integers(-4, 5), 0, 99))
        parts += [synthesize(text, voice, words_a_minute, tone), silence(rng.uniform(*_GAP_S))]
        texts.append(text)
        length = sum(len(p.wave) for p in parts)
        if length >= samples:
            break
    if length < samples:
        parts.append(silence((samples - length) / SAMPLE_RATE_HZ))
    return Utterance(cut(join(parts), samples), tuple(texts))


def cut(speech: Speech, samples: int) -> Speech:
    """The first ``samples`` of a speech, faded out over the last 10 ms where speech is cut."""
    wave = speech.wave[:samples].copy()
    fade = min(len(wave), SAMPLE_RATE_HZ // 100)
    if len(speech.wave) > samples:
        wave[len(wave) - fade :] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
    end = len(wave) / SAMPLE_RATE_HZ
    kept = [p for p in speech.phonemes if p.start_s < end]
    phonemes = [Phoneme(p.label, p.start_s, min(p.end_s, end)) for p in kept]
    if not phonemes:
        phonemes = [Phoneme(PAUSE, 0.0, end)]
    return Speech(wave, phonemes)
