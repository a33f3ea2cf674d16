"""The model `vqgan`: its quantiser, its parts in PyTorch."""

from __future__ import annotations

import torch

from pixa.models.export.vqgan_export import decode_macs
from pixa.models.nets.quantizer import Codebook, nearest
from pixa.models.nets.vqgan import NESTED, Vqgan, VqganConfig
from tests.vqgan.models import SMALL, as_tensor, settled


class TestCodebook:
    def test_follows_its_data_and_stays_alive(self):
        torch.manual_seed(1)
        codebook, places = Codebook(4, 2), 10 + torch.randn(40, 2)
        used = torch.ones(8, 8, 8, dtype=torch.bool)
        for _ in range(60):
            z = places[torch.randint(40, (8, 8, 8))].permute(0, 3, 1, 2)
            codebook.follow(z, codebook(z)[1], used)
        index = nearest(places, codebook.codes)
        assert len(index.unique()) == len(codebook)
        assert (places - codebook.codes[index]).square().mean() < 0.2 * places.var()

    def test_what_is_not_used_moves_nothing(self):
        torch.manual_seed(1)
        codebook = Codebook(4, 2)
        codes, z = codebook.codes.clone(), torch.randn(1, 2, 4, 4)
        codebook.follow(z, codebook(z)[1], torch.zeros(1, 4, 4, dtype=torch.bool))
        torch.testing.assert_close(codebook.codes, codes)

    def test_groups_are_neighbours_of_equal_number(self):
        torch.manual_seed(1)
        codebook = Codebook(4, 3)
        clusters = torch.eye(4, 3) * 9
        codebook.codes.copy_((clusters[:, None] + 0.1 * torch.randn(4, 4, 3)).view(16, 3)[torch.randperm(16)])
        codebook.count.fill_(1)
        codebook.regroup(codebook.order())
        inside = codebook.codes.view(4, 4, 3).var(1).mean()
        assert inside < 0.1
        assert {tuple(row) for row in codebook.centroids.round().tolist()} == {tuple(row) for row in clusters.tolist()}

    def test_nested_tokens_stand_for_centroids(self):
        codebook, z = Codebook(4, 3), torch.randn(2, 3, 5, 5)
        chosen, index = codebook(z, torch.tensor([True, False]))
        assert index[0].max() < 4
        torch.testing.assert_close(chosen[0].permute(1, 2, 0), codebook.centroids[index[0]])
        torch.testing.assert_close(chosen[1].permute(1, 2, 0), codebook.codes[index[1]])


class TestModel:
    def test_gradient_reaches_every_parameter(self, photo):
        model = settled(photo).train()
        model.settled = False
        level = torch.tensor([50, 200])
        out = model(as_tensor(photo[:128, :128]).expand(2, -1, -1, -1), level)
        bits = model.bits(out["tokens"], level)
        (out["x_hat"].square().mean() + out["tokens"].error + sum(b.mean() for b in bits.values())).backward()
        nested = {name for name, _ in model.named_parameters() if "group_embedding" in name}
        without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0}
        assert without == nested

    @torch.no_grad()
    def test_levels_spread_the_rate(self, trained, photo):
        x = as_tensor(photo)
        bits = []
        for level in (0, 30, 60, 100, 150, 200):
            tokens = trained(x, torch.tensor([level]))["tokens"]
            count = sum(u.sum().item() for u in tokens.used)
            bits.append(count * (1 if level < NESTED else 2))
        assert bits == sorted(bits)
        regions = tokens.stop.numel()
        assert bits[0] < 1.5 * regions < 35 * regions < bits[-1]

    @torch.no_grad()
    def test_begins_as_a_transform_codec(self, photo):
        torch.manual_seed(1)
        model, x = Vqgan(VqganConfig(c=96, groups=8)).eval(), as_tensor(photo)
        model.start_from_dct(x)
        model.calibrate([x])
        errors = [(model(x, torch.tensor([level]))["x_hat"] - x).square().mean().item() for level in (40, 120, 200)]
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 0.1 * x.var()

    @torch.no_grad()
    def test_coarse_tokens_do_not_depend_on_the_map(self, trained, photo):
        few, many = (trained(as_tensor(photo), torch.tensor([level]))["tokens"] for level in (60, 200))
        assert torch.equal(few.index[0], many.index[0])
        assert (few.stop <= many.stop).all()

    @torch.no_grad()
    def test_a_token_changes_only_what_is_coded_later(self, trained, photo):
        tokens = trained(as_tensor(photo), torch.tensor([200]))["tokens"]
        used, stop = [torch.ones_like(u) for u in tokens.used], torch.full_like(tokens.stop, 2)
        passes = lambda index: list(trained.prior.passes(index, used, stop, torch.tensor([False])))
        whole = passes(tokens.index)
        for number in (2, 5, 9):
            grid, (_, rows, columns) = whole[number].grid, whole[number].own
            row, column = rows[len(rows) // 2], columns[len(columns) // 2]
            altered = [index.clone() for index in tokens.index]
            altered[grid][0, row, column] = (altered[grid][0, row, column] + SMALL.groups * 3) % SMALL.groups**2
            pairs = zip(whole, passes(altered), strict=True)
            changed = [(a.group_logits != b.group_logits).any().item() for a, b in pairs]
            assert not any(changed[: number + 1])
            assert any(changed[number + 1 :])

    def test_decoding_keeps_to_its_budget(self):
        model = Vqgan()
        assert decode_macs(model) <= 120_000
        assert 2 * sum(p.numel() for p in model.parameters()) < 40e6
