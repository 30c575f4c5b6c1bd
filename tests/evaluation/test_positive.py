"""Which of two classes is the positive one, where nobody said so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featstore.errors import UnknownNameError
from featstore.evaluation.metrics import ABSENT, positive_class


@pytest.mark.parametrize(
    ("ill", "well"),
    [
        ("covid", "normal"),
        ("PNEUMONIA", "NORMAL"),
        ("COVID", "NonCOVID"),
        ("CT_COVID", "CT_NonCOVID"),
        ("COVID-19", "non-COVID"),
        ("Effusion", "No Finding"),
        ("tumor", "notumor"),
        ("Parasitized", "Uninfected"),
        ("ill", "well"),
        ("malignant", "benign"),
        ("benign", "normal"),
        ("case", "control"),
        ("unhealthy", "healthy"),
        ("abnormal", "normal"),
        ("non-normal", "normal"),
        ("positive", "negative"),
        ("pos", "neg"),
        ("1", "0"),
        ("yes", "no"),
        ("present", "absent"),
        ("True", "False"),
        ("+", "-"),
        ("class 1", "class 0"),
        ("tumor cells", "normal cells"),
        ("covid positive", "covid negative"),
        ("krank", "gesund"),
        ("Befund", "ohne Befund"),
        ("malade", "sain"),
        ("positif", "négatif"),
        ("enfermo", "sano"),
        ("肺炎", "正常"),
        ("阳性", "阴性"),
        ("TB", "TB-free"),
        ("tumor", "tumorfrei"),
        ("covid+", "covid-"),
        ("covid1", "covid0"),
        ("1_covid", "0_normal"),
        ("0_covid", "1_normal"),
        ("Covid1", "Normal2"),
        ("Fallgruppe", "Kontrollgruppe"),
        ("AD", "CN"),
        ("J", "N"),
        ("covid", "others"),
        ("melanoma", "nevus"),
        ("HSIL", "NILM"),
        ("mut", "wt"),
        ("chory", "zdrowy"),
        ("nemocný", "zdravý"),
        ("beteg", "egészséges"),
        ("άρρωστος", "υγιής"),
        ("hasta", "sağlıklı"),  # noqa: RUF001
        ("covid", "niet-covid"),
        ("болен", "не болен"),
        ("रोगी", "स्वस्थ"),
        ("感染", "未感染"),
        ("肺炎", "正常肺"),
    ],
)
def test_the_class_that_is_not_called_normal_is_the_positive_one(ill, well):
    for classes in (tuple(sorted((ill, well))), tuple(sorted((ill, well), reverse=True))):
        chosen = positive_class(classes)
        assert (classes[chosen.index], chosen.origin, chosen.guessed) == (ill, "names", True)


@pytest.mark.parametrize(
    "classes",
    [
        ("a", "b"),
        ("cat", "dog"),
        ("node", "noise"),
        ("net", "unet"),
        ("AD", "NE"),
        ("NET", "tumor"),
        ("T1", "T2"),
    ],
)
def test_where_names_say_nothing_it_is_the_last_and_that_is_called_a_guess(classes):
    chosen = positive_class(classes)
    assert (chosen.index, chosen.origin, chosen.guessed) == (1, "order", True)


def test_who_says_which_is_believed():
    assert positive_class(("covid", "normal"), "normal").index == 1
    assert not positive_class(("covid", "normal"), "normal").guessed
    with pytest.raises(UnknownNameError, match="no class 'ill'"):
        positive_class(("covid", "normal"), "ill")


def test_more_than_two_classes_have_none_unless_one_is_asked_for():
    assert positive_class(("a", "b", "normal")).index is None
    assert not positive_class(("a", "b", "normal")).guessed
    assert positive_class(("a", "b", "normal"), "b").index == 1


@given(st.text(max_size=12), st.text(max_size=12))
def test_any_two_names_have_one_positive_class_whichever_comes_first(one, other):
    chosen, turned = positive_class((one, other)), positive_class((other, one))
    assert chosen.origin == turned.origin
    if chosen.origin == "names":
        assert (one, other)[chosen.index] == (other, one)[turned.index]


@given(st.sampled_from(sorted(ABSENT)), st.sampled_from(["lesion", "covid", "fracture", "Krebs", "肿瘤"]))
def test_every_word_of_the_list_is_told_from_a_finding(word, finding):
    classes = tuple(sorted((word.upper(), finding)))
    assert classes[positive_class(classes).index] == finding


@pytest.mark.parametrize(
    ("absent", "finding"),
    [
        ("NEGATIF", "POSITIF"),
        ("SAGLIKLI", "HASTA"),
        ("SA\u011eLIKLI", "HASTA"),
        ("saudavel", "doente"),
        ("prawidlowy", "chory"),
        ("ΥΓΙΗΣ", "ΑΣΘΕΝΗΣ"),
    ],
)
def test_capitals_and_plain_keyboards_leave_out_accents(absent, finding):
    classes = tuple(sorted((absent, finding)))
    assert classes[positive_class(classes).index] == finding
