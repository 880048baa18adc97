"""Published models that read lips in ordinary speech: auto_avsr and its relatives, USR, and AV-HuBERT.

They are encoders of lips, sound or both, with a CTC head and a transformer decoder, some with a language model beside
them. Their files come from strangers: `weights` reads them without running a pickle, `config` bounds their sizes.
"""
