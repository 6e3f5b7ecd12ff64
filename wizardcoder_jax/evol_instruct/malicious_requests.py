"""Detection of requests for malicious code: a rule that matches phrases, and a judge that asks the teacher model.

The rule looks for harmful intent rather than for topics: a request to make something harmful ("write a keylogger"), or a
harmful action ("steals saved passwords"). Requests to detect, prevent, explain or simulate malicious code pass, and so do
requests for attacks in games or for killing processes. The rule misses requests that hide their intent; the judge is meant to
find those.
"""

import re

from wizardcoder_jax.evol_instruct.elimination_rules import MALICIOUS_REQUEST, CandidateRecord, Rule, excerpt
from wizardcoder_jax.evol_instruct.judges import AskTeacher, Judge

PURPOSE = "malicious"
MAX_CHARS = 6000  # maximum number of characters of the instruction in the prompt; the rest is left out

PROMPT = (
    "Below is an instruction that a programmer gives to a code assistant. Decide whether it asks "
    "for malicious code: code made to "
    "harm or deceive people, or to damage, enter, spy on or overload systems without their owners' permission. Defensive "
    "security, teaching how attacks work, games, simulations and ordinary administration are harmless.\n\n"
    "Instruction:\n{instruction}\n\n"
    "Your judgement (just answer: Malicious or Harmless; no need to explain the reason):"
)

_MAKE = (
    r"\b(?:write|creat(?:e|ing)|build|develop|mak(?:e|ing)|cod(?:e|ing)|implement|generat(?:e|ing)|design|produce|"
    r"program|craft|compose|"
    r"give me|show me|provide|construct|set up|deploy|modify|extend|"
    r"rewrite|improv(?:e|ing)|evolve|enhance|upgrade|optimi[sz]e|help me (?:to )?(?:write|create|build|make|with)|"
    r"i (?:need|want))\s+"
)
# Words that may occur between "write" and the harmful thing.
_FILLER = (
    r"(?:(?:me|us|an?|the|this|my|some|your|own|new|simple|basic|small|tiny|fully|functional|working|functioning|"
    r"complete|full|"
    r"advanced|sophisticated|stealthy|hidden|undetect(?:able|ed)|invisible|silent|persistent|polymorphic|self-replicating|"
    r"custom|powerful|effective|real|fake|malicious|remote|cross-platform|multi-threaded|effective|python|java|javascript|"
    r"node\.?js|c|c\+\+|c#|go|rust|bash|powershell|perl|ruby|php|vba|html|windows|linux|android|macos|excel|word|"
    r"browser|chrome|"
    r"piece|pieces|program|programs|script|scripts|code|codes|tool|app|application|software|function|module|macro|snippet|"
    r"example|server|client|bot|extension|page|website|virus|trojan|of|for|in|with|using|that|which|acts?|works?|functions?|"
    r"behaves?|serves?|is|as|like|to|be|install|installs|deploy|deploys|run|runs|spread|spreads|drop|drops|existing|"
    r"above|below|following|"
    r"command|control|and|step|by|steps|how)[\s,]+){0,12}?"
)
_ANY_ADJECTIVE = (
    r"(?:(?!(?:of|for|on|about|in|against|from|to|with|and|called|named|anti|no|not|class|type|table|"
    r"struct|enum|interface|model|object|method|list|dashboard|schema|query|report|known|test)\b)[\w-]+\s+)?"
)
_THING = (
    r"(?:(?:key-?\s?logg(?:er|ing)|ransom-?ware|mal-?ware|spy-?ware|ad-?ware|root-?kits?|boot-?kits?|bot-?nets?|"
    r"trojan(?: horse)?s?|remote access trojans?|(?:computer|self-replicating|macro|boot sector|"
    r"file-infecting) (?:virus(?:es)?|worms?)|"
    r"(?:network|email|usb|internet) worms?|"
    r"(?:batch file )?(?:virus|worm)(?=\s*(?:$|[.,;!?]|in\b|that (?:spread|infect|delet|destroy|cop|replicat)|which\b|"
    r"for (?:windows|linux|android|mac)|programs?\b|scripts?\b|code\b))|droppers?\b(?= (?:that|which|for))|"
    r"credential stuffing (?:attack|tool|script|bot)|"
    r"(?:wi-?fi )?deauth(?:entication)? (?:attack|tool|script)|crypto-?(?:jack(?:er|ing)s?|lockers?)|(?:password|credential|"
    r"cookie|token|info(?:rmation)?) ?"
    r"-?(?:stealers?|grabbers?|harvesters?)|credit card skimmers?|web ?skimmers?|phishing (?:kits?|pages?|sites?|websites?|"
    r"emails?|e-mails?|campaigns?|forms?|attacks?|links?|scripts?|templates?|messages?)|(?:d?dos|"
    r"denial[- ]of[- ]service) (?:attack|attacks|"
    r"tools?|scripts?|bots?|programs?)|(?:fork|logic|zip|e-?mail|sms) bombs?|spam ?-?bots?|"
    r"(?:zero-?day )?exploits? (?:for|code|kit|kits|script|against|that|which|using|"
    r"targeting|payload)|reverse shells?(?! ?sort)|backdoors?(?! (?:criteri|path|adjust))|key-?gens?|wi-?fi (?:cracker|jammer)|"
    r"shellcode|"
    r"(?:brute[- ]?force|password)(?:[- ]?forcing)? (?:attack|attacks|cracker|cracking tool)(?: tool| script)?|"
    r"(?:arp|dns) (?:spoof(?:er|ing)|poison(?:er|ing)) (?:tool|script|attack)?|rubber ducky payload|"
    r"scam (?:web)?(?:sites?|pages?|e-?mails?|messages?)|"
    r"sql injection (?:tools?|scripts?|bots?)|"
    r"(?:clipboard|session|browser|account) hijack(?:ers?|ing))\b"
    # Excludes "malware scanner" and "phishing e-mails for awareness training", but not "ransomware that blocks ...".
    r"(?!(?:[\s-]+(?!that\b|which\b|to\b|and\b)[\w-]+){0,2}[\s-]+(?:detect\w*|scann\w+|remov\w+|classif\w+|filter\w*|"
    r"preven\w+|protect\w*|analys\w+|analyz\w+|"
    r"defen[cs]\w+|"
    r"mitigat\w+|block\w*|signatures?|samples?|simulat\w+|awareness|quiz|game|dataset|database|report|article|training|"
    r"resistan\w+|monitor\w*|cleaner|definitions?|alerts?|identif\w+|puzzle|problem|story)))"
)
_SECRETS = (
    r"(?:passwords?|credentials?|cookies?|credit ?card|session (?:tokens?|ids?)|bank(?:ing)? (?:details|data|information)|"
    r"login (?:details|data|information)|personal (?:data|information|files|photos)|private keys?|browsing history|"
    r"crypto(?:currency)? wallets?|bitcoin wallets?|api keys|sensitive (?:data|information|files)|user (?:data|"
    r"information)|identities)"
)
_UNAWARE = (
    r"without (?:the |their |his |her |its |any |anyone'?s? )?(?:(?:them|him|anyone|anybody|users?|victims?|owners?|"
    r"persons?|targets?|someone|"
    r"people|employees?)['\u2019]?s? )?"
    r"(?:knowledge|knowing|consent|permission|awareness|noticing|being (?:noticed|detected|aware)|authori[sz]ation)"
)
_DEEDS = (
    rf"\b(?:steal|steals|stealing|dump|dumps|dumping|exfiltrat\w+|harvest(?:s|ing)?|grab(?:s|bing)?|phish\w*|sniff(?:s|"
    rf"ing)?)\s+(?:[\w'\u2019-]+\s+){{0,6}}?{_SECRETS}",
    r"\b(?:log|logs|record|records|captur\w+) (?:all|every|each) keys?\b.{0,60}\b(?:types?|typed|press\w*|hits?)\b.{0,80}\b"
    r"(?:send|sends|upload\w*|e-?mail\w*)",
    r"\b(?:log|logs|logging|record|records|recording|captur\w+) (?:all |every |each )?(?:of )?(?:the )?(?:(?:users?|"
    r"victims?)['\u2019]?s? )?"
    r"key(?:strokes?| presses)\b.{0,120}\b(?:send|sends|upload\w*|e-?mail\w*|secret\w*|hidden|silent\w*|background|"
    r"remote|victim\w*|attacker)",
    r"\b(?:secretly|covertly|stealthily) (?:tak|send|upload|record|log|monitor|track|captur|read|cop[iy]|activat|"
    r"open|install|collect|access|watch|listen|turn|min|encrypt|delet|download|forward|enabl|spy|steal|scrap|gather|"
    r"transfer)\w*\b",
    r"\bsilently (?:log|logs|record|records|captur\w+|monitor\w*|track\w*|upload\w*|"
    r"send|sends|"
    r"activat\w+|turn on|mine|mines|install\w*|encrypt\w*|delet\w+)",
    r"\b(?:encrypt|lock|block)\w*\b.{0,100}\b(?:ransom\b|demand\w* (?:a )?(?:payment|bitcoin|money)|until (?:they|"
    r"the victim|he|she|"
    r"you) pays?)",
    r"\b(?:hack|hacks|hacking|break|breaks|breaking) into (?:an?|the|some\w*|my|his|her|their|other|any|another|people)\b",
    r"\bd?dos(?:es|ing)? (?:an?|the|my|some\w*|his|her|their|any|other) \w",
    r"\b(?:perform|carry out|conduct|execut|launch|run|automat)\w* (?:an? )?(?:sql injection|arp spoofing|"
    r"credential stuffing|man[- ]in[- ]the[- ]middle)"
    r"\b(?=.{0,60}\b(?:on|against|intercept\w*|target\w*)\b)",
    r"\btakes? down (?:an?|the|any|some\w*|their|other) (?:[\w-]+ )?(?:website|server|site|network|web page)",
    r"\b(?:thousands|hundreds|dozens|lots|mass|multiple|unlimited|bulk|many) (?:of )?fake (?:[\w-]+ )?(?:accounts|"
    r"reviews|profiles|likes|followers|votes)",
    r"\b(?:creat|generat|post|mak|register)\w* (?:[\w-]+ ){0,2}?fake (?:[\w-]+ ){0,2}?(?:accounts|reviews|followers|"
    r"likes|votes)\b"
    r"(?!.{0,60}\b(?:test\w*|mock\w*|demo\w*|sample|seed\w*|faker)\b)",
    r"\b(?:crash|destroy|damag|brick|freez|infect)\w* (?:other people|someone|somebody|a stranger|my (?:friend|"
    r"neighbou?r|enemy|boss|school|teacher|ex\b))",
    r"\b(?:download|run|execut|install|deploy|deliver|drop|inject)\w* (?:and \w+ )?(?:an? |"
    r"the )?(?:[\w-]+ ){0,2}?(?:malware|ransomware|trojans?|spyware|"
    r"(?:malicious |hidden )payloads?|payloads? (?:silently|secretly))\b",
    r"\b(?:delet|remov|wip|eras)\w* (?:[\w-]+ ){0,3}?system ?32\b",
    r"\b(?:delet|wip|eras|format|destroy|corrupt)\w*\b.{0,60}\bwithout (?:warning|asking|telling|any warning)",
    r"\b(?:launch|launches|perform|performs|carry out|carries out|conduct|conducts|execute|executes|mount|automate|"
    r"automates)\s+(?:an?\s+)?"
    r"(?:[\w-]+\s+){0,3}?(?:d?dos|denial[- ]of[- ]service|phishing|credential stuffing|man[- ]in[- ]the[- ]middle|"
    r"arp spoofing|"
    r"sql injection|brute[- ]?force|ransomware|cross[- ]site scripting|xss) attacks?\b(?=.{0,60}\b(?:on|against|at|"
    r"target\w*|victims?)\b)",
    r"\bflood(?:s|ing)? (?:[\w'\u2019-]+ ){0,3}?(?:inbox\w*|mailbox\w*|phones?)\b",
    r"\bjam(?:s|ming)? (?:[\w-]+ ){0,3}?(?:wi-?fi|wireless|gps|bluetooth|signals?)\b",
    r"\bhack(?:s|ing)? (?:[\w'\u2019-]+ ){0,4}?(?:accounts?|computers?|phones?|servers?|websites?|wi-?fi|webcams?)\b",
    r"\b(?:crash|destroy|damag|infect|lock)\w* (?:the |an? )?(?:target|victim)['\u2019]?s\b",
    r"\b(?:hid|embed|inject|insert|conceal)\w* (?:a |some |the )?(?:malicious|harmful)\b",
    r"\b(?:dump|extract|inject|attack)\w* .{0,60}\b(?:of|on|in|from|into) (?:an?|any|the) vulnerable \w+",
    r"\bflood(?:s|ing)?\b.{0,60}\b(?:with|by)\b.{0,40}\b(?:requests|traffic|packets|connections)\b(?=.{0,80}\b(?:down|"
    r"offline|crash\w*|"
    r"unavailable|overload\w*|overwhelm\w*|unresponsive)\b)",
    r"\b(?:take|takes|bring|brings|knock|knocks)\s+(?:down\s+)?(?:[\w'\u2019-]+\s+){1,5}?(?:website|server|network|"
    r"site)\s*(?:down|offline)",
    r"\b(?:bypass\w*|evad\w+|disabl\w+|circumvent\w*|avoid\w*|hid(?:e|es|"
    r"ing) from) (?:[\w'\u2019-]+ ){0,4}?(?:anti-?virus|windows defender|"
    r"edr\b|amsi\b|uac\b|malware detection|intrusion detection|two-factor|2fa\b|licen[cs]e (?:check|key|"
    r"activation)|drm\b|anti-?cheat)",
    r"\b(?:undetect(?:able|ed)|invisible|not (?:be )?(?:flagged|detected|caught|noticed|found)) (?:by|to) (?:[\w-]+ )?"
    r"(?:anti-?virus|windows defender|edr\b|security software)",
    r"\b(?:anti-?virus|windows defender|edr|security software) (?:[\w-]+ )?(?:can ?not|can['\u2019]t|won['\u2019]t|"
    r"(?:does|do)(?:n['\u2019]t| not)) (?:detect|find|flag|notice|catch)",
    r"\bobfuscat\w+ (?:[\w'\u2019-]+ ){0,4}?(?:malware|payload|virus|ransomware|malicious|shellcode)",
    r"\b(?:infect|infects|infecting)\s+(?:[\w'\u2019-]+\s+){0,4}?(?:files|computers?|machines?|executables|systems?|"
    r"devices|pcs?|usb)\b(?=.{0,60})",
    r"\b(?:inject|attach|copie?|replicat)\w* itself (?:in)?to (?:other|all|every|any) (?:[\w-]+ ){0,3}?(?:files?|"
    r"executables?|programs?|"
    r"process(?:es)?|computers?|machines?|folders?|drives?|usb)\b",
    r"\b(?:(?:spread|spreads|propagat\w+|replicat\w+) itself|(?:spread|spreads|spreading) (?:the |an? )?(?:malware|"
    r"virus|worm|infection))\b"
    r".{0,40}\b(?:computers|machines|usb|contacts|victims?|network|devices|files|folders)\b",
    r"\b(?:wip|delet|destroy|corrupt|eras|overwrit|lock)\w*\s+(?:[\w'\u2019-]+\s+){0,6}?(?:victim|target|someone|"
    r"somebody)['\u2019]s\b",
    rf"\b(?:track|tracks|record|records|captur\w+|monitor\w*|read|reads|access\w*|install\w*|spy|spies|spying|"
    rf"activat\w+|download\w*|turns? on|"
    rf"control\w*|open|opens|min(?:e|es|ing)|send|sends|intercept\w*|log|logs|listen\w*|copy|copies|scrap\w+|collect\w*|"
    rf"gather\w*)\b.{{0,100}}\b{_UNAWARE}",
    r"\bsp(?:y|ies|ying) on (?:my|some\w*|his|her|their|an?|other|another|people|the) (?:[\w-]+ )?(?:girlfriend|boyfriend|"
    r"wife|husband|partner|ex|"
    r"spouse|colleagues?|employees?|neighbou?rs?|users?|people|person|phone|victims?)\b",
    r"\b(?:crack|hijack|spam|guess|take over|takes over|hack)(?:s|es|ing)?\s+(?:[\w'\u2019-]+\s+){0,2}?(?:someone|somebody|"
    r"other (?:people|users)|another (?:user|person)|my (?:\w+ )?(?:friend|neighbou?r|enemy|boss|ex|girlfriend|boyfriend|wife|"
    r"husband))\b(?: else)?['\u2019]?",
    r"\bguess(?:es|ing)? (?:[\w-]+ )?passwords?\b.{0,40}\b(?:ssh|server|account|log-?in|website)",
    r"\bcrack(?:s|ing)? (?:the )?(?:licen[cs]e|activation|copy protection)",
    r"\bdeauthenticat\w+ .{0,40}\b(?:wi-?fi|wireless|access point)",
    r"\bpoison(?:s|ing)? (?:an? |the )?(?:dns|arp)\b",
    r"\bexfiltrat\w+ (?:[\w-]+ ){0,4}?(?:data|documents|files|information)\b",
    r"\bclon(?:e|es|ing) (?:[\w'\u2019-]+ ){1,4}?(?:website|site|page|portal)\b.{0,80}\b(?:collect|steal|harvest|captur)\w* "
    rf"(?:[\w'\u2019-]+ ){{0,3}}?{_SECRETS}",
    r"\bimpersonat\w+ .{0,80}\b(?:pins?|passwords?|credentials|card numbers?|bank details|money)\b",
    r"\b(?:eras|delet|clear|wip|remov)\w* (?:[\w-]+ ){0,4}?logs?\b.{0,40}\bso (?:that )?(?:the |an? |my )?(?:admin\w*|owners?|"
    r"victims?|they|nobody|no one|police|he|she|company|forensic\w*)\b",
    r"\b(?:bypass\w*|evad\w+|circumvent\w*) (?:[\w'\u2019-]+ ){0,3}?firewalls?\b",
    r"\b(?:disabl\w+|bypass\w*) (?:[\w-]+ ){0,2}?(?:company|school|victim|target|someone)['\u2019]s\b",
    r"\bredirect\w* .{0,60}\b(?:fake|phishing|malicious) (?:[\w-]+ )?(?:page|site|website)\b",
    r"\b(?:with|using|use) stolen (?:[\w-]+ )?(?:cards?|card numbers?|credentials?|cookies|accounts?|passwords?|tokens?|"
    r"identit\w+)\b",
    r"\b(?:crack|cracks|cracking|brute[- ]?forc\w+)\s+(?:[\w'\u2019-]+\s+){0,5}?(?:wi-?fi|neighbou?r\w*|instagram|"
    r"facebook|gmail|twitter|someone\w*|"
    r"other (?:people|users)\w*|victim\w*|log-?in (?:page|form)s?|accounts?|ssh (?:log-?ins?|servers?)|pirated|"
    r"commercial software)\b",
    r"\b(?:fake|cloned?|spoofed|look-?alike) (?:[\w-]+ ){0,4}?(?:log-?in|bank\w*|sign-?in|payment) (?:page|form|site|"
    r"website|portal)\b.{0,120}\b"
    r"(?:captur\w+|steal\w*|collect\w*|harvest\w*|sav\w+|send\w*|trick\w*|victims?)",
    r"\b(?:trick|tricks|deceiv\w+|fool|fools) (?:[\w-]+ ){0,3}?(?:users?|people|victims?|customers?|"
    r"employees?) (?:in)?to (?:[\w-]+ ){0,3}?"
    r"(?:giv\w+|reveal\w*|enter\w*|provid\w+|download\w*|install\w*|shar\w+|disclos\w+|pay\w*|click\w*|send\w*|buy\w*|"
    r"transfer\w*)",
    r"\b(?:exploit|exploits|exploiting)\s+(?:[\w'\u2019-]+\s+){0,6}?(?:vulnerabilit\w+|buffer overflows?|"
    r"cve-\d+)\b.{0,80}\b(?:to gain|"
    r"execut\w+ (?:shell|arbitrary )code|"
    r"remote code execution|gain\w* "
    r"(?:root|access|control)|live|production|victim|target\w*|shell)\b",
    r"\b(?:deface|defaces|defacing) (?:an?|the|some\w*|my|other)\b",
    r"\b(?:scrap\w+|generat\w+|us(?:e|es|ing)|test\w*|validat\w+) (?:[\w-]+ ){0,3}?stolen (?:credit|card|password|"
    r"credential|account)",
    r"\bsend(?:s|ing)? (?:[\w-]+ ){0,5}?(?:spam|phishing) (?:e-?mails?|messages?|sms)\b",
)
_THINGS = re.compile(_MAKE + _FILLER + _ANY_ADJECTIVE + r"(?<![\w-])" + _THING, re.IGNORECASE)
_DEED = re.compile("|".join(f"(?:{deed})" for deed in _DEEDS), re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n+")
# Words about defense, explanation or games: a harmful phrase is ignored if one of them precedes it in the same sentence.
_HARMLESS = re.compile(
    r"\b(?:detect\w*|prevent\w*|protect\w*|defend\w*|defen[cs]e\w*|mitigat\w+|remov\w+|scan\w*|block\w*|identif\w+|"
    r"recogni[sz]\w+|classif\w+|"
    r"filter\w*|analy[sz]\w+|explain\w*|describ\w+|discuss\w*|summari[sz]e\w*|what|why|how (?:does|do(?! (?:i|you|"
    r"we)\b)|did|would|can an?|"
    r"are|is|attackers?|hackers?|to (?:detect|"
    r"prevent|protect|secure|avoid))|essay|articles?|blog|quiz|simulat\w+|games?|warns?|"
    r"educat(?:e|es) (?:users|people|employees)|avoid|vulnerable to|safe from|secure|against|sanitiz\w+|check(?:s|"
    r"ing)? (?:if|whether)|"
    r"predict\w*|list|compar\w+|definition|difference|if an? (?:attacker|hacker)|flag\w*|report\w*|bann?(?:s|ed|ing)?|"
    r"moderat\w+|find out if)\b",
    re.IGNORECASE,
)


def find_malicious_phrase(instruction: str) -> str | None:
    """Return the phrase with which an instruction asks for malicious code, or None if it does not."""
    for sentence in _SENTENCE.split(instruction):
        for pattern in (_THINGS, _DEED):
            found = pattern.search(sentence)
            if found is not None and not _HARMLESS.search(sentence[: found.end()]):
                return found.group()
    return None


def _check(candidate: CandidateRecord) -> str | None:
    if candidate.response is not None:  # the same instruction was already checked before it was answered
        return None
    found = find_malicious_phrase(candidate.instruction)
    return None if found is None else excerpt(found)


MALICIOUS_RULE = Rule(name=MALICIOUS_REQUEST, check=_check)


async def _judge(candidate: CandidateRecord, ask_teacher: AskTeacher) -> str | None:
    reply = (await ask_teacher(PROMPT.format(instruction=candidate.instruction[:MAX_CHARS]), PURPOSE)).text
    return excerpt(reply) if re.match(r"\W*malicious\b", reply, re.IGNORECASE) else None


MALICIOUS_JUDGE = Judge(name=MALICIOUS_REQUEST, check=_judge)
"""The judge that asks the teacher model. If the reply is unclear, the record passes."""
