# ruff: noqa
import sys; m=sys.argv[1]; sys.argv=["x"]; exec(open("scripts/tuning/tune.py").read().split('if __name__')[0])
from collections import Counter
net, tok = checkpoints.load_to_sample(Path(m), "cpu"), checkpoints.load_tokenizer(Path(m))
def show(ps, title, k=6):
    g = sampling.sample(net, tok, [p.prompt for p in ps], sampling.SamplingParams(n=1, temperature=.6, max_tokens=384, seed=5), title="x")
    v = verify_many([(s.text, p.answer) for p, gr in zip(ps, g) for s in gr])
    c=Counter(); bad=[]
    for p,gr,x in zip(ps,g,v):
        t="think" if "<think>" in gr[0].text else "direct"; c[t,x.verdict=="right",p.family]+=1
        if x.verdict!="right": bad.append((p.prompt,p.answer,gr[0].text))
    print(title,sorted(c.items()))
    for b in bad[:k]: print("   ",b)
show(easy,"easy")
show([p for p in val if p.family=="fraction"],"fraction")
show([p for p in val if p.level==3 and p.family!="fraction"],"L3",4)
show([p for p in val if p.level==6][:100],"L6",6)
