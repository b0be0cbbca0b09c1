"""Names of languages: the short codes that callers use and the long ones that engines do.

`convert.py` reads callers' codes with `alpha3`, engines tell what they read with `shortest`.
"""

# ISO 639-1 to ISO 639-3 where a language has both, by the ISO 639-3 registration authority.
_PAIRS = """
aa:aar ab:abk ae:ave af:afr ak:aka am:amh an:arg ar:ara as:asm av:ava ay:aym az:aze ba:bak be:bel
bg:bul bi:bis bm:bam bn:ben bo:bod br:bre bs:bos ca:cat ce:che ch:cha co:cos cr:cre cs:ces cu:chu
cv:chv cy:cym da:dan de:deu dv:div dz:dzo ee:ewe el:ell en:eng eo:epo es:spa et:est eu:eus fa:fas
ff:ful fi:fin fj:fij fo:fao fr:fra fy:fry ga:gle gd:gla gl:glg gn:grn gu:guj gv:glv ha:hau he:heb
hi:hin ho:hmo hr:hrv ht:hat hu:hun hy:hye hz:her ia:ina id:ind ie:ile ig:ibo ii:iii ik:ipk io:ido
is:isl it:ita iu:iku ja:jpn jv:jav ka:kat kg:kon ki:kik kj:kua kk:kaz kl:kal km:khm kn:kan ko:kor
kr:kau ks:kas ku:kur kv:kom kw:cor ky:kir la:lat lb:ltz lg:lug li:lim ln:lin lo:lao lt:lit lu:lub
lv:lav mg:mlg mh:mah mi:mri mk:mkd ml:mal mn:mon mr:mar ms:msa mt:mlt my:mya na:nau nb:nob nd:nde
ne:nep ng:ndo nl:nld nn:nno no:nor nr:nbl nv:nav ny:nya oc:oci oj:oji om:orm or:ori os:oss pa:pan
pi:pli pl:pol ps:pus pt:por qu:que rm:roh rn:run ro:ron ru:rus rw:kin sa:san sc:srd sd:snd se:sme
sg:sag sh:hbs si:sin sk:slk sl:slv sm:smo sn:sna so:som sq:sqi sr:srp ss:ssw st:sot su:sun sv:swe
sw:swa ta:tam te:tel tg:tgk th:tha ti:tir tk:tuk tl:tgl tn:tsn to:ton tr:tur ts:tso tt:tat tw:twi
ty:tah ug:uig uk:ukr ur:urd uz:uzb ve:ven vi:vie vo:vol wa:wln wo:wol xh:xho yi:yid yo:yor za:zha
zh:zho zu:zul
"""
_ALPHA3 = dict(pair.split(":") for pair in _PAIRS.split())
_ALPHA2 = {alpha3: alpha2 for alpha2, alpha3 in _ALPHA3.items()}


def alpha3(code: str) -> str | None:
    """Returns the ISO 639-3 code of an ISO 639-1 or 639-3 code; ``None`` if it is neither.

    Three lower-case letters pass as they are: whether there is such a language, and whether
    it is installed, an engine knows.
    """
    if len(code) == 3 and code.isascii() and code.isalpha() and code.islower():
        return code
    return _ALPHA3.get(code)


def shortest(code: str) -> str:
    """Returns the shortest code of a language that is given by its ISO 639-3 code."""
    return _ALPHA2.get(code, code)
